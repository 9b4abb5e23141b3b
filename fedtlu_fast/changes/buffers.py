"""Finds the floating-point tensors of a checkpoint that are not trained and therefore are not layers.

A file does not tell which of its tensors are buffers. We recognise them in three ways:

* by name: statistics of BatchNorm and similar layers, positions, frequencies of rotary embeddings, attention
  masks, windows of Swin (`NAMES`), and every tensor in a module of `MODULES`, such as the copies that weight
  averaging keeps;
* by another tensor in the same module: vectors and masks of spectral norm and of pruning beside
  ``weight_orig`` (``weight_v`` of weight norm is trained and has no such neighbour), averages of a codebook;
* by content: ``bias``, ``mask`` and ``tril`` that hold a causal mask, as in GPT-2 on the hub, and ``pe`` with
  the first row of sinusoidal positions. A trained ``bias`` has other numbers.

Quantised weights and their scales are not layers either, because only both together are a weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from fedtlu_fast.changes.stored import Stored, pieces

NAMES = frozenset(
    {
        "running_mean", "running_var", "running_std", "num_batches_tracked",
        "position_ids", "token_type_ids",
        "inv_freq", "original_inv_freq", "cos_cached", "sin_cached",
        "masked_bias", "attn_mask",
        "relative_position_index", "relative_coords_table",
    }
)  # fmt: skip
MODULES = frozenset({"model_ema", "activation_post_process", "weight_fake_quant"})
# Ending of a buffer's name -> ending of the parameter it belongs to, in the same module.
BESIDE = {"_u": "_orig", "_v": "_orig", "_mask": "_orig"}
# Averages of a codebook, which occur together.
CODEBOOK = frozenset({"cluster_size", "embed_avg"})
MASKS = frozenset({"bias", "mask", "tril", "causal_mask"})
# Endings that follow the name of a quantised weight, or replace it, for the scales of its numbers.
SCALES = ("_scale", "_scale_inv", ".absmax", ".nested_absmax", ".quant_map", ".nested_quant_map")
SCALES_OF = {"scales": "qweight", "SCB": "weight", "weight_scale": "weight", "input_scale": "weight"}
ROWS = 256
"""The number of rows of a mask that are checked at a time."""


def buffers(tensors: Mapping[str, Stored]) -> set[str]:
    """Returns the names of the floating-point tensors that are buffers."""
    return {name for name, tensor in tensors.items() if tensor.floating and _is_buffer(name, tensors)}


def quantised(tensors: Mapping[str, Stored]) -> set[str]:
    """Returns the names of the floating-point tensors that are quantised weights or their scales."""
    found: set[str] = set()
    for name, tensor in tensors.items():
        if not tensor.floating:
            continue
        weight = _weight_of(name, tensors)
        if weight is not None and (tensors[weight].narrow or not tensors[weight].floating):
            found |= {name, weight}
    return {name for name in found if tensors[name].floating}


def _is_buffer(name: str, tensors: Mapping[str, Stored]) -> bool:
    *modules, last = name.split(".")
    within = "".join(f"{module}." for module in modules)
    if last in NAMES or not MODULES.isdisjoint(modules):
        return True
    if any(
        last.endswith(ending) and f"{within}{last.removesuffix(ending)}{parameter}" in tensors
        for ending, parameter in BESIDE.items()
    ):
        return True
    if last in ("_u", "_v") and modules and modules[-1].isdecimal():  # of the newer spectral norm
        return f"{'.'.join(modules[:-1])}.original" in tensors
    if last in CODEBOOK:
        return all(f"{within}{other}" in tensors for other in CODEBOOK)
    if last in MASKS:
        return _is_causal_mask(tensors[name])
    return last == "pe" and _is_sinusoid(tensors[name])


def _is_causal_mask(tensor: Stored) -> bool:
    """Tells whether a tensor is a causal mask.

    Its shape is then [1, 1, n, n] or [n, n] with n >= 2, and it has 0 above the diagonal, 1 on it, and 0 or 1
    below.
    """
    *lead, height, width = (0, 0, *tensor.shape)
    if height != width or width < 2 or any(size > 1 for size in lead):
        return False
    for start in range(0, width, ROWS):
        rows = tensor.values(start * width, min(start + ROWS, width) * width).view(-1, width)
        if bool(
            ((rows != 0) & (rows != 1)).any() | rows.triu(start + 1).any() | (rows.diagonal(start) != 1).any()
        ):
            return False
    return True


def _is_sinusoid(tensor: Stored) -> bool:
    """Tells whether a tensor has shape [..., n, width] or [n, 1, width] and the first row 0, 1, 0, 1, ..."""
    if len(tensor.shape) < 2 or 0 in tensor.shape or tensor.shape[-1] % 2:
        return False
    first = tensor.values(0, tensor.shape[-1])
    expected = torch.tensor([0.0, 1.0], dtype=first.dtype).repeat(len(first) // 2)
    return torch.equal(first, expected) and all(
        bool((tensor.values(start, stop).abs() <= 1).all()) for start, stop in pieces(tensor.count)
    )


def _weight_of(name: str, tensors: Mapping[str, Stored]) -> str | None:
    """Returns the weight that a tensor of scales belongs to; None if the tensor does not hold scales."""
    for ending in SCALES:
        if name.endswith(ending) and name.removesuffix(ending) in tensors:
            return name.removesuffix(ending)
    within, _, last = name.rpartition(".")
    weight = f"{within}.{SCALES_OF[last]}" if within and last in SCALES_OF else ""
    return weight if weight in tensors else None
