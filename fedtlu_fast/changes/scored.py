"""Computes the scores of layers and blocks of the change between two states of a model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fedtlu_fast.changes.buffers import buffers, quantised
from fedtlu_fast.changes.files import Checkpoint, Stored, open_checkpoint
from fedtlu_fast.changes.matching import core, matched, natural
from fedtlu_fast.changes.memory import held_in_memory
from fedtlu_fast.changes.ranking import block_rows, layer_rows
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.layout.blocks import Granularity
from fedtlu_fast.scoring import LayerScores, LayerStats, Pooling, layer_stats, score_blocks, score_layers

Model = nn.Module | Mapping[str, Tensor] | str | os.PathLike[str]
"""A module, a state dict, or the path of a file or directory with one."""


@dataclass(frozen=True)
class ScoredChange:
    """Holds the scored change of a model; printing it shows the blocks, best first.

    Attributes:
        layout: layers, blocks and groups of the tensors that both states have, with the names of BEFORE.
        stats: statistics of every layer's change, [L].
        scores: the scores of every layer (Eq. 1), [L].
        block_scores: the scores of the blocks, [B].
        skipped: names of tensors that are not floating point, or belong to quantised weights.
        buffers: names of buffers, which are not layers.
        tied: names of tensors in one checkpoint only that are copies of a tensor in both.
        renamed: name in BEFORE -> name in AFTER, for names that differ.
        not_read: sentences about files and tensors that were not read; each begins with ``BEFORE`` or
            ``AFTER``.
    """

    layout: ParameterLayout
    stats: LayerStats
    scores: LayerScores
    block_scores: Tensor
    skipped: tuple[str, ...]
    buffers: tuple[str, ...]
    tied: tuple[str, ...]
    renamed: dict[str, str]
    not_read: tuple[str, ...]

    @property
    def blocks(self) -> list[dict[str, Any]]:
        """Returns a row for each block, best first in its group: name, group, rank, score, l2, parameters."""
        return block_rows(self.layout, self.stats, self.block_scores)

    @property
    def layers(self) -> list[dict[str, Any]]:
        """Returns a row for each layer, largest excess first: name, rank, score, excess, mean, std, ..."""
        return layer_rows(self.layout, self.stats, self.scores)

    def as_json(self) -> dict[str, Any]:
        """Returns all results in a form that JSON can hold."""
        return {
            "granularity": self.layout.granularity,
            "ddof": self.scores.ddof,
            "blocks": self.blocks,
            "layers": self.layers,
            "skipped": list(self.skipped),
            "buffers": list(self.buffers),
            "tied": list(self.tied),
            "renamed": [{"before": name, "after": other} for name, other in self.renamed.items()],
            "not_read": list(self.not_read),
        }

    def __str__(self) -> str:
        lines = [
            f"{len(self.layout.blocks)} blocks, {len(self.scores)} layers; best blocks of each group first"
        ]
        for row in self.blocks:
            place = f"rank {row['rank']} in {row['group']}" if row["rank"] else "unique"
            lines.append(f"  {row['name']}  {row['score']:.4e}  ({place})")
        return "\n".join(lines)


def score(
    before: Model,
    after: Model,
    *,
    granularity: Granularity = "block",
    ddof: int = 1,
    pooling: Pooling = "mean",
    backend: str = "auto",
) -> ScoredChange:
    """Scores the change of a model by Eq. 1 and ranks its layers and blocks.

    The change is computed in float64, one tensor at a time, so bfloat16 and float16 models lose no further
    precision. Names may differ by prefixes that libraries add (`matching`). The layers of a module are its
    trainable parameters; the layers of a state dict or a file are all floating-point tensors that are not
    buffers (`buffers`). If one state is a module and the other is a state dict, the module decides.

    Args:
        before: a `torch.nn.Module`, a mapping from name to tensor such as a state dict, or a path. A path
            names a .safetensors file, an index of such files, or a directory that holds one of these.
        after: a later state of the same model, in any of these forms.
        granularity: the kind of blocks: ``block``, ``module`` or ``tensor`` (see
            `ParameterLayout.from_module`).
        ddof: the kind of standard deviation in Eq. 1: 0 of a population, 1 of a sample; see `score_layers`.
        pooling: how the scores of a block's layers are combined; see `score_blocks`.
        backend: the backend that computes the statistics (see `layer_stats`).

    Raises:
        InputError: A file is missing, damaged or a pickle; the two states do not hold the same tensors; or a
            tensor has a dtype that PyTorch cannot convert.

    Examples:
        >>> before = {"h.0.w": torch.zeros(2), "h.1.w": torch.zeros(2)}
        >>> after = {"h.0.w": torch.tensor([1.0, -1.0]), "h.1.w": torch.tensor([1.0, 3.0])}
        >>> [row["name"] for row in score(before, after, granularity="tensor").blocks]
        ['h.1.w', 'h.0.w']
    """
    with ExitStack() as stack:
        old, new = (
            _opened(field, model, other, stack)
            for field, model, other in (("BEFORE", before, after), ("AFTER", after, before))
        )
        sides = [_Sorted.of(checkpoint) for checkpoint in (old, new)]
        pairs, tied = _pairs(*sides)
        if old.ordered:
            pairs = {name: pairs[name] for name in old.tensors if name in pairs}
        if not pairs:
            raise InputError("BEFORE", old.source, "a model with floating-point tensors that are layers")
        for name, other in pairs.items():
            ours, theirs = old.tensors[name].shape, new.tensors[other].shape
            if ours != theirs:
                raise InputError(f"AFTER: {other}", theirs, f"shape {ours}, as {name} in BEFORE")
        layout = ParameterLayout.from_shapes({name: old.tensors[name].shape for name in pairs}, granularity)
        parts = [
            layer_stats({name: new.tensors[other].read() - old.tensors[name].read()}, backend=backend)
            for name, other in pairs.items()
        ]
    stats = _joined(parts)
    scores = score_layers(stats, ddof)
    return ScoredChange(
        layout=layout,
        stats=stats,
        scores=scores,
        block_scores=score_blocks(scores, layout, stats, pooling),
        skipped=_either(*(side.skipped for side in sides)),
        buffers=_either(*(side.buffers for side in sides)),
        tied=tied,
        renamed={name: other for name, other in pairs.items() if name != other},
        not_read=tuple(f"{side.field}: {note}" for side in (old, new) for note in side.not_read),
    )


def _opened(field: str, model: Model, other: Model, stack: ExitStack) -> Checkpoint:
    if isinstance(model, str | os.PathLike):
        return open_checkpoint(field, Path(model), stack)
    return held_in_memory(field, model, other if isinstance(other, nn.Module) else None)


@dataclass(frozen=True)
class _Sorted:
    """Holds the names of a checkpoint's tensors: layers, buffers, and all others."""

    checkpoint: Checkpoint
    layers: list[str]
    buffers: list[str]
    skipped: list[str]

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> _Sorted:
        tensors = checkpoint.tensors
        kept = buffers(tensors)
        skipped = {name for name, tensor in tensors.items() if not tensor.floating} | quantised(tensors)
        layers = [name for name in tensors if name not in kept and name not in skipped]
        real = [name for name in tensors if not tensors[name].alias]
        return cls(
            checkpoint,
            layers,
            [name for name in real if name in kept],
            [name for name in real if name in skipped - kept],
        )


def _pairs(old: _Sorted, new: _Sorted) -> tuple[dict[str, str], tuple[str, ...]]:
    """Pairs the layers that both states have, and lists tied copies that only one of them has."""
    pairs = matched(old.layers, new.layers)
    held, other_held = old.checkpoint.tensors, new.checkpoint.tensors
    twice = [name for name, other in pairs.items() if held[name].alias and other_held[other].alias]
    pairs = {name: other for name, other in pairs.items() if name not in twice}
    tied = twice
    sides = ((old, list(pairs), new), (new, list(pairs.values()), old))
    for side, used, other_side in sides:
        tensors, known = side.checkpoint.tensors, {*used, *twice}
        lone = sorted((name for name in side.layers if name not in known), key=natural)
        copies = [name for name in lone if tensors[name].alias or _is_copy(tensors[name], tensors, used)]
        tied = [*tied, *copies]
        missing = [name for name in lone if name not in copies]
        if missing:
            _refuse(missing, other_side)
    return pairs, tuple(tied)


def _is_copy(tensor: Stored, tensors: dict[str, Stored], names: list[str]) -> bool:
    """Tells whether a tensor is one of the named tensors, or has the same numbers as one of them.

    A tensor whose numbers are all equal, such as a bias of zeros, is never taken for a copy.
    """
    like = [tensors[name] for name in names if tensors[name].shape == tensor.shape]
    if any((held.file, held.name) == (tensor.file, tensor.name) for held in like):
        return True
    own = tensor.read() if like else torch.empty(0)
    if not bool((own != own.reshape(-1)[:1]).any()):  # two biases that are zero are not tied
        return False
    return any(torch.equal(held.read(), own) for held in like if held.dtype == tensor.dtype)


def _refuse(missing: list[str], other: _Sorted) -> None:
    """Raises an error about tensors that the other checkpoint lacks, or holds in a form without scores."""
    side, name = other.checkpoint, missing[0]
    apart = next((held for held in other.skipped if core(held) == core(name)), None)
    if apart is not None:
        raise InputError(
            f"{side.field}: {apart}",
            side.tensors[apart].dtype,
            "floating-point numbers without separate scales, as in the other checkpoint",
            "Save it in F32, F16 or BF16.",
        )
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    raise InputError(side.field, f"no tensor {name}{more}", "the tensors of the other checkpoint")


def _either(before: list[str], after: list[str]) -> tuple[str, ...]:
    """Joins the names of both sides in natural order; names that differ only by a prefix appear once."""
    known = {core(name) for name in before}
    return tuple(sorted([*before, *(name for name in after if core(name) not in known)], key=natural))


def _joined(parts: list[LayerStats]) -> LayerStats:
    def column(name: str) -> Tensor:
        return torch.cat([getattr(part, name) for part in parts])

    names = tuple(name for part in parts for name in part.names)
    fields = ("count", "mean", "std", "l2", "abs_max", "nonfinite")
    return LayerStats(names, *(column(name) for name in fields))
