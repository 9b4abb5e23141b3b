"""LoRA (arXiv 2106.09685) through peft: low-rank adapters beside frozen matrices.

The adapters are put into the model itself (`peft.inject_adapter_in_model`), so that its class and outputs
stay as the task expects them. They are ordinary parameters: layout, blocks, scores, selection and checkpoints
see only them and the head. Frozen weights are neither sent nor kept in checkpoints, because every process
makes them from the settings.
"""

from __future__ import annotations

import copy
import hashlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear

from fedtlu_fast.errors import InputError
from fedtlu_fast.extras import check_extra
from fedtlu_fast.randomness import torch_seeded

FIELD = "model.lora"
ALL = "all-linear"


def add_adapters_(
    model: nn.Module, rank: int, alpha: int, targets: Sequence[str], seed: int, *, train_head: bool
) -> None:
    """Freezes the model and adds adapters to it, which change no output at first.

    In language modelling the head is frozen, because it belongs to the pre-trained model and is often the
    embedding as well. In the other tasks it is new and therefore trained.

    Args:
        model: the task's model, changed in place.
        rank: rank of the adapters.
        alpha: an adapter's output is scaled by alpha / rank.
        targets: names, or ends of names, of linear layers; ``all-linear``: all linear layers except the head.
        seed: the run's seed, for the adapters' initial values.
        train_head: whether the head is trained.

    Raises:
        InputError: peft is not installed; or a target matches no linear layer.
    """
    check_extra("peft", f"{FIELD}.rank", rank)
    head = _head(model)
    chosen = _targets(model, head, targets)
    # Imported here because it takes seconds and is an optional dependency.
    from peft import LoraConfig, inject_adapter_in_model

    peft_config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen, bias="none")
    with torch_seeded(seed, "adapters"), warnings.catch_warnings():
        # The first warning only says that GPT-2 stores its matrices transposed, the second that transformers
        # will rename an attribute.
        for message in ("fan_in_fan_out is set to False", ".*is_gradient_checkpointing"):
            warnings.filterwarnings("ignore", message)
        inject_adapter_in_model(peft_config, model)
    if train_head:
        for module in head:
            module.requires_grad_()


def merged(model: nn.Module) -> nn.Module:
    """Returns the model with its adapters merged into its weights; it has the same outputs.

    A model without adapters is returned unchanged; otherwise the result is a copy.
    """
    if is_peft(model):
        copied: Any = copy.deepcopy(model)
        whole: nn.Module = copied.merge_and_unload()
        return whole
    if not adapter_layers(model):
        return model
    found = copy.deepcopy(model)
    for name, module in adapter_layers(found).items():
        module.merge()
        parent, _, own_name = name.rpartition(".")
        setattr(found.get_submodule(parent), own_name, module.get_base_layer())
    return found


def is_peft(model: nn.Module) -> bool:
    """Whether this is a model of peft's own, such as `get_peft_model` returns."""
    if "peft" not in sys.modules:  # there can be no such model
        return False
    from peft import PeftModel

    return isinstance(model, PeftModel)


def adapter_layers(model: nn.Module) -> dict[str, Any]:
    """Returns the layers that have adapters, by their names."""
    if "peft" not in sys.modules:
        return {}
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: own for name, own in model.named_modules() if isinstance(own, BaseTunerLayer)}


def frozen_identity(model: nn.Module) -> dict[str, str]:
    """Returns a digest of the frozen weights, which checkpoints lack and a resumed run has to have.

    It is empty for a model without frozen weights.
    """
    digest = hashlib.sha256()
    frozen = [(name, param) for name, param in model.named_parameters() if not param.requires_grad]
    for name, param in frozen:
        digest.update(f"{name}{tuple(param.shape)}{param.dtype}".encode())
        digest.update(param.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return {"frozen_sha256": digest.hexdigest()} if frozen else {}


def _head(model: nn.Module) -> list[nn.Module]:
    """Returns the parts of a `transformers` model outside its body; of other models the last part."""
    parts = [child for child in model.children() if next(child.parameters(), None) is not None]
    body = getattr(model, getattr(model, "base_model_prefix", None) or "", None)
    beside = [part for part in parts if part is not body]
    return beside if len(beside) < len(parts) else parts[-1:]


def _targets(model: nn.Module, head: list[nn.Module], wanted: Sequence[str]) -> list[str]:
    """Returns the full names of the linear layers that match these names or ends of names."""
    linear = dict(_linear(model))
    inside = {id(module) for part in head for module in part.modules()}
    body = [name for name, module in linear.items() if id(module) not in inside]
    found: dict[str, None] = {}
    for target in wanted:
        matching = [name for name in linear if name == target or name.endswith(f".{target}")]
        matching = body if target == ALL else matching
        if not matching:
            ends = ", ".join(dict.fromkeys(name.rpartition(".")[2] for name in linear)) or "none"
            raise InputError(f"{FIELD}.targets", target, f"{ALL}, or linear layers of this model: {ends}")
        found |= dict.fromkeys(matching)
    return list(found)


def _linear(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yields the linear layers whose `forward` is called, with their names.

    `nn.MultiheadAttention` reads its output layer's weight without calling the layer, so that an adapter
    there would have no effect.
    """
    from transformers.pytorch_utils import Conv1D

    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and not isinstance(module, NonDynamicallyQuantizableLinear):
            yield name, module
