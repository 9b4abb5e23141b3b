"""Opens LoRA adapters (arXiv 2106.09685) that peft saved: changes ``scale * B A`` of weights.

The product is computed a few rows at a time, in float64. The scale is ``alpha / r``, or ``alpha / sqrt(r)``
with rank-stabilised LoRA (arXiv 2312.03732).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import isfinite, prod, sqrt
from pathlib import Path
from typing import Any

from torch import Tensor

from fedtlu_fast.changes import pickled, safetensors_file
from fedtlu_fast.changes.stored import Checkpoint, Stored
from fedtlu_fast.errors import InputError, listed

CONFIG = "adapter_config.json"
FILES = ("adapter_model.safetensors", "adapter_model.bin")
PREFIX = "base_model.model."
"""The names of all tensors of an adapter begin with this, before the names of the base model."""
_FACTOR = re.compile(
    r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<factor>[AB])(?:\.\w+)*?(?:\.weight)?"
)
_MOVED = ("pissa", "olora", "corda", "loftq", "eva")
"""Starting values (init_lora_weights) with which peft also changes the weights of the base model."""


@dataclass
class _Slot:
    """Keeps the matrices of the one product that is being read."""

    kept: tuple[object, Tensor, Tensor] = (None, Tensor(), Tensor())


@dataclass(frozen=True, eq=False)
class Product:
    """The change ``scale * B A`` of one weight, as a source of numbers.

    Attributes:
        a: the matrix A, [r, ...].
        b: the matrix B, [out, r] and further dimensions of size 1.
        scale: the factor.
        turned: whether the weight is stored as [in, out] (embeddings; ``Conv1D`` of Transformers).
        slot: keeps the matrices while their product is read.
    """

    a: Stored
    b: Stored
    scale: float
    turned: bool
    slot: _Slot

    @property
    def shape(self) -> tuple[int, ...]:
        """Returns the shape of the weight."""
        shape = (self.b.shape[0], *self.a.shape[1:])
        return shape[::-1] if self.turned else shape

    def flat(self, name: str, start: int, stop: int) -> Tensor:
        """Computes the elements ``start:stop`` of the product, in float64."""
        left, right = self._factors()
        width = right.shape[1]
        first = start // width
        rows = left[first : -(-stop // width)] @ right
        return rows.view(-1)[start - first * width : stop - first * width]

    def _factors(self) -> tuple[Tensor, Tensor]:
        of, left, right = self.slot.kept
        if of is not self:
            a = self.a.values(0, self.a.count).view(self.a.shape[0], -1)
            b = self.b.values(0, self.b.count).view(self.b.shape[0], -1) * self.scale
            left, right = (a.T.contiguous(), b.T.contiguous()) if self.turned else (b, a)
            self.slot.kept = (self, left, right)  # in one step, because several threads read
        return left, right


def turned(stored: Stored) -> Stored:
    """Returns the product with its two dimensions exchanged."""
    source = stored.source
    assert isinstance(source, Product)
    return replace(stored, source=replace(source, turned=not source.turned), shape=stored.shape[::-1])


def is_adapter(path: Path) -> bool:
    """Tells whether a path is an adapter's directory, or its file; `open_adapter` needs the configuration."""
    if path.is_dir():
        held = any((path / file).is_file() for file in FILES)
        return held and ((path / CONFIG).is_file() or not (path / "model.safetensors").is_file())
    return path.name in FILES and path.is_file()


def open_adapter(field: str, path: Path, stack: ExitStack) -> Checkpoint:
    """Opens an adapter; its products are named like the weights of the base model that they change.

    Args:
        field: ``BEFORE`` or ``AFTER``, for messages.
        path: the adapter's directory, or its file in there.
        stack: the stack that keeps the file open and closes it.

    Raises:
        InputError: The configuration is damaged; the adapter is of another kind than LoRA; or its tensors do
            not belong together.
    """
    folder = path if path.is_dir() else path.parent
    file = next(folder / name for name in FILES if (folder / name).is_file()) if path.is_dir() else path
    config = _config(field, folder / CONFIG)
    pickle = file.suffix in pickled.SUFFIXES
    held = pickled.tensors_of(field, file) if pickle else safetensors_file.tensors_of(field, file, stack)
    factors: dict[str, dict[str, Stored]] = {}
    whole: dict[str, Stored] = {}
    odd = []
    for name, tensor in held.items():
        plain = name.removeprefix(PREFIX)
        found = _FACTOR.fullmatch(plain)
        if found is not None and not plain.endswith(".bias"):
            key = f"{found['factor']}{' of an embedding' if found['embedding'] else ''}"
            factors.setdefault(found["module"].removesuffix(".base_layer"), {})[key] = tensor
        elif ".lora_" in plain:
            odd.append(plain)
        else:
            parts = plain.split(".")
            whole[".".join(part for part in parts if part not in ("base_layer", "modules_to_save"))] = tensor
    if not factors:
        raise InputError(field, str(path), "a LoRA adapter, but it holds no matrices lora_A and lora_B")
    slot = _Slot()
    products = {
        f"{module}.weight": _product(field, module, found, config, slot) for module, found in factors.items()
    }
    start = str(config.get("init_lora_weights", True)).lower()
    notes = [
        f"init_lora_weights={start}: the products also hold a part of the base model's weights"
        for kind in _MOVED
        if start.startswith(kind)
    ]
    if pickle:
        notes.append(f"{file.name}: a pickle, read with weights_only=True, so that no code in it ran")
    base = config.get("base_model_name_or_path")
    not_read = (f"{listed(odd, 5)}: no part of the products and not read",) if odd else ()
    return Checkpoint(
        field, str(path), whole, not_read, notes=tuple(notes), products=products, base=str(base or "unnamed")
    )


def _product(
    field: str, module: str, found: Mapping[str, Stored], config: Mapping[str, Any], slot: _Slot
) -> Stored:
    embedding = any(key.endswith("embedding") for key in found)
    ending = " of an embedding" if embedding else ""
    a, b = found.get(f"A{ending}"), found.get(f"B{ending}")
    if a is None or b is None:
        missing = "lora_A" if a is None else "lora_B"
        raise InputError(f"{field}: {module}", f"no {missing}", "both matrices, lora_A and lora_B")
    fits = len(a.shape) > 1 and len(b.shape) > 1 and a.shape[0] == b.shape[1] == prod(b.shape[1:])
    if not (fits and a.floating and b.floating and a.shape[0]):
        given = f"lora_A {a.dtype} {a.shape} and lora_B {b.dtype} {b.shape}"
        raise InputError(f"{field}: {module}", given, "floating-point matrices [r, ...] and [out, r]")
    rank = a.shape[0]
    alpha = _of(config.get("alpha_pattern"), module, config["lora_alpha"])
    scale = float(alpha) / (sqrt(rank) if config.get("use_rslora") else rank)
    flipped = embedding or (bool(config.get("fan_in_fan_out")) and len(a.shape) == 2)
    product = Product(a, b, scale, flipped, slot)
    return Stored(field, product, f"{module}.weight", product.shape, "F64", place=a.place)


def _of(patterns: Any, module: str, otherwise: Any) -> Any:
    """Returns the value of the first pattern that matches the end of a module's name."""
    for pattern, value in (patterns or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            return value
    return otherwise


def _config(field: str, path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))
        if not isinstance(config, dict):
            raise ValueError("it is not an object")
        alphas = {
            "": config.setdefault("lora_alpha", 8),
            **(config.get("alpha_pattern") or {}),
        }  # peft's default
        for pattern, value in alphas.items():
            re.compile(pattern)
            if not isfinite(float(value)):
                raise ValueError(f"lora_alpha is {value}")
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, re.error) as error:
        raise InputError(field, str(path), f"the configuration of an adapter; {error!r}") from error
    kind = str(config.get("peft_type", "LORA")).upper()
    merge = "Join adapter and base with peft (merge_and_unload), save the result, and score that."
    if kind != "LORA":
        raise InputError(field, f"an adapter of type {kind}", "an adapter of type LORA", merge)
    for key in ("use_dora", "target_parameters", "use_qalora"):
        if config.get(key):
            raise InputError(
                field, f"an adapter with {key}", "plain LoRA, whose change is scale * B A", merge
            )
    return config
