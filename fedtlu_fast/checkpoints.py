"""Two checkpoints of a model -> which layers and blocks changed in which way.

Reads safetensors only: a pickle can run code, so it is never opened.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fedtlu_fast.blocks import Granularity
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.scoring import LayerScores, Pooling, score_blocks, score_layers
from fedtlu_fast.stats import LayerStats, layer_stats


@dataclass(frozen=True)
class ScoredChange:
    """The scored change between two checkpoints.

    Attributes:
        layout: layers, blocks and groups of the tensors both have.
        stats: statistics of every layer's change.
        scores: Eq. 1 for every layer.
        block_scores: [B].
        skipped: names of tensors that are not floating point.
    """

    layout: ParameterLayout
    stats: LayerStats
    scores: LayerScores
    block_scores: Tensor
    skipped: tuple[str, ...]


def score_checkpoints(
    before: Path,
    after: Path,
    *,
    granularity: Granularity = "block",
    ddof: int = 1,
    pooling: Pooling = "mean",
    backend: str = "auto",
) -> ScoredChange:
    """Scores the change from one checkpoint to another, one tensor in memory at a time.

    The change is taken in float64, so bfloat16 and float16 checkpoints lose nothing more.

    Args:
        before: a .safetensors file, or a directory with model.safetensors or a sharded index.
        after: likewise, of the same model.
        granularity: what a block is.
        ddof: see `score_layers`.
        pooling: see `score_blocks`.
        backend: who computes the statistics.

    Raises:
        InputError: a file is missing, damaged or a pickle; or the two do not hold the same tensors.
    """
    with ExitStack() as stack:
        old, new = (_open(field, path, stack) for field, path in (("BEFORE", before), ("AFTER", after)))
        _check_same_tensors(old, new)
        names = sorted((name for name in old if old[name].floating), key=_natural)
        if not names:
            raise InputError("BEFORE", str(before), "a checkpoint with floating-point tensors")
        layout = ParameterLayout.from_shapes({name: old[name].shape for name in names}, granularity)
        parts = [layer_stats({name: new[name].read() - old[name].read()}, backend=backend) for name in names]
    stats = _joined(parts)
    scores = score_layers(stats, ddof)
    return ScoredChange(
        layout=layout,
        stats=stats,
        scores=scores,
        block_scores=score_blocks(scores, layout, stats, pooling),
        skipped=tuple(name for name in old if not old[name].floating),
    )


@dataclass(frozen=True)
class _Stored:
    """A tensor in an open safetensors file."""

    file: Any
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def floating(self) -> bool:
        return self.dtype.startswith(("F", "BF"))

    def read(self) -> Tensor:
        tensor: Tensor = self.file.get_tensor(self.name)
        return tensor.to(torch.float64)


def _open(field: str, path: Path, stack: ExitStack) -> dict[str, _Stored]:
    stored: dict[str, _Stored] = {}
    for file in _files(field, path):
        try:
            handle = stack.enter_context(safe_open(str(file), framework="pt"))
            for name in handle.keys():  # noqa: SIM118 (not a mapping)
                part = handle.get_slice(name)
                stored[name] = _Stored(handle, name, tuple(part.get_shape()), part.get_dtype())
        except (SafetensorError, OSError, ValueError) as error:
            raise InputError(field, str(file), f"a whole safetensors file; {error}") from error
    return stored


def _files(field: str, path: Path) -> Iterable[Path]:
    if path.is_file():
        if path.suffix in (".bin", ".pt", ".pth", ".ckpt", ".pkl"):
            raise InputError(
                field,
                str(path),
                "a .safetensors file; pickles are never opened",
                "Save it by safetensors.torch.",
            )
        return [path]
    if not path.is_dir():
        raise InputError(field, str(path), "a .safetensors file or a model directory that exists")
    index = path / "model.safetensors.index.json"
    if (path / "model.safetensors").is_file():
        return [path / "model.safetensors"]
    if index.is_file():
        try:
            found = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            shards = sorted({shard for shard in found if isinstance(shard, str)})
            if len(shards) < len(set(found)):
                raise ValueError("a file name that is no text")
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(field, str(index), f"an index with a weight_map; {error!r}") from error
        outside = [shard for shard in shards if Path(shard).name != shard or shard == ".."]
        if outside:
            raise InputError(field, outside[0], f"the name of a file in {path}")
        return [path / shard for shard in shards]
    found = sorted(path.glob("*.safetensors"))
    if len(found) != 1:
        held = ", ".join(sorted(item.name for item in path.iterdir())[:5]) or "nothing"
        raise InputError(field, str(path), f"a directory with model.safetensors; it holds {held}")
    return found


def _check_same_tensors(old: Mapping[str, _Stored], new: Mapping[str, _Stored]) -> None:
    for field, here, there in (("AFTER", old, new), ("BEFORE", new, old)):
        missing = sorted(set(here) - set(there), key=_natural)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise InputError(field, f"no tensor {missing[0]}{more}", "the tensors of the other checkpoint")
    for name, stored in old.items():
        if stored.shape != new[name].shape:
            raise InputError(f"AFTER: {name}", new[name].shape, f"shape {stored.shape}, as in BEFORE")


def _joined(parts: list[LayerStats]) -> LayerStats:
    def column(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    names = tuple(name for part in parts for name in part.names)
    fields = ("count", "mean", "std", "l2", "abs_max", "nonfinite")
    return LayerStats(names, *(column(field) for field in fields))


def _natural(name: str) -> list[tuple[int, str | int]]:
    """Sorts ``h.2`` before ``h.10``."""

    def parts() -> Iterator[tuple[int, str | int]]:
        for part in re.split(r"(\d+)", name):
            yield (0, int(part)) if part.isdigit() else (1, part)

    return list(parts())
