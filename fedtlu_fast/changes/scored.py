"""Computes the scores of layers and blocks of the change between two states of a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from fedtlu_fast.changes.opening import Model, opened
from fedtlu_fast.changes.pairing import Pairing, Side, on_base, paired
from fedtlu_fast.changes.result import EXCESS, OF_CHANGE_ALONE, ScoredChange, check_metric
from fedtlu_fast.changes.stored import Checkpoint
from fedtlu_fast.changes.streaming import stats_of
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.layout.blocks import Granularity
from fedtlu_fast.scoring import Pooling, score_blocks, score_layers


def score(
    before: Model,
    after: Model,
    *,
    granularity: Granularity = "block",
    metric: str = EXCESS,
    ddof: int = 1,
    pooling: Pooling = "mean",
    base: Model | None = None,
    strict: bool = False,
    backend: str = "auto",
) -> ScoredChange:
    """Scores the change of a model, by Eq. 1 or another metric, and ranks its layers and blocks.

    Both states are read a piece at a time, and the change is computed in float64, so that bfloat16 and
    float16 models lose no further precision and memory for a few pieces is enough. Names may differ by
    prefixes that libraries add (`matching`), and dtypes may differ. The layers of a module are its trainable
    parameters; the layers of a state dict or a file are all floating-point tensors that are not buffers
    (`buffers`). If one state is a module and the other is a state dict, the module decides.

    A state is one of these:

    * a `torch.nn.Module`, or a mapping from name to tensor, such as a state dict;
    * a .safetensors file, an index of such files, or a directory that holds one of these;
    * a .bin, .pt or .pth file that ``torch.save`` wrote, an index of .bin files, or a directory without
      safetensors files that holds one of these. They are opened with ``weights_only=True``, so that no code
      in them runs;
    * a .gguf file; its numbers are dequantised (needs the package gguf);
    * the directory of a LoRA adapter that peft saved. Its products ``scale * B A`` are scored; see `base`;
    * a name on the hub, such as ``gpt2`` or ``owner/model@revision``, if there is no such path. Without a
      network, the local cache is read.

    Args:
        before: the state before the change.
        after: a later state of the same model.
        granularity: the kind of blocks: ``block``, ``module`` or ``tensor`` (see
            `ParameterLayout.from_module`).
        metric: the metric that ranks; see `ScoredChange.rows`.
        ddof: the kind of standard deviation in Eq. 1: 0 of a population, 1 of a sample; see `score_layers`.
        pooling: how the scores of a block's layers are combined; see `score_blocks`.
        base: the base model of adapters. Each adapter then is the whole model with the adapter added. Without
            it, two adapters are compared by their products alone; and of an adapter and a whole model, the
            whole model is the adapter's base, and only the layers that the adapter changes are scored.
        strict: whether layers that only one state has, or that have another shape in the other, are an error;
            otherwise they are listed in `left_out`, and the layers that both have are scored.
        backend: the backend that computes the statistics (see `layer_stats`).

    Raises:
        InputError: A model is missing, damaged or a pickle with more than tensors; the two states have no
            layers in common, or with `strict` not the same layers; a tensor has a dtype that PyTorch cannot
            convert; or the metric is unknown or needs more than the two states.

    Examples:
        >>> before = {"h.0.w": torch.zeros(2), "h.1.w": torch.zeros(2)}
        >>> after = {"h.0.w": torch.tensor([1.0, -1.0]), "h.1.w": torch.tensor([1.0, 3.0])}
        >>> [row["name"] for row in score(before, after, granularity="tensor").rows()]
        ['h.1.w', 'h.0.w']
    """
    check_metric(metric)
    given: dict[str, Model] = {"BEFORE": before, "AFTER": after} | ({} if base is None else {"BASE": base})
    with ExitStack() as stack:
        checkpoints = opened(given, stack)
        pairing, notes = _paired(checkpoints, strict)
        shapes = {pair.name: pair.shape for pair in pairing.pairs}
        layout = ParameterLayout.from_shapes(shapes, granularity)
        known = all(pair.weight for pair in pairing.pairs)
        # Weights that both states share cost time, so they are read only for metrics that need them.
        free = not any(set(pair.before) & set(pair.after) for pair in pairing.pairs)
        wanted = known and (free or metric not in OF_CHANGE_ALONE)
        stats, weights = stats_of(pairing.pairs, backend, weights=wanted)
    scores = score_layers(stats, ddof)
    found = ScoredChange(
        layout=layout,
        stats=stats,
        scores=scores,
        block_scores=score_blocks(scores, layout, stats, pooling),
        weights=weights,
        metric=metric,
        pooling=pooling,
        skipped=pairing.skipped,
        buffers=pairing.buffers,
        tied=pairing.tied,
        left_out=pairing.left_out,
        renamed={pair.name: pair.other for pair in pairing.pairs if pair.name != pair.other},
        not_read=_said(checkpoints, "not_read"),
        notes=(*_said(checkpoints, "notes"), *notes),
    )
    if metric != EXCESS:
        found.rows()  # an error of the metric comes here, and not when the result is printed
    return found


def _paired(checkpoints: dict[str, Checkpoint], strict: bool) -> tuple[Pairing, list[str]]:
    """Pairs the layers of both states, after adapters are put on their base model."""
    adapters = [field for field, checkpoint in checkpoints.items() if checkpoint.products is not None]
    notes: list[str] = []
    left_out: list[str] = []
    if "BASE" in adapters:
        raise InputError("BASE", checkpoints["BASE"].source, "a whole model, but this is an adapter")
    sides = {field: Side.of(checkpoints[field]) for field in checkpoints if field not in adapters}
    base = sides.get("BASE")
    if base is not None and not adapters:
        raise InputError(
            "BASE", base.checkpoint.source, "nothing, since neither BEFORE nor AFTER is an adapter"
        )
    for field in adapters:
        other = base or next(iter(sides.values()), None) if len(adapters) == 1 or base else None
        if other is None:
            sides[field] = Side.of(checkpoints[field])
            continue
        found, unfit = on_base(checkpoints[field], other, strict, only_changed=base is None)
        left_out += unfit
        sides[field] = found
    if base is None and len(adapters) == 1:
        notes.append(f"{adapters[0]}: an adapter, put on the other model; layers that it changes are scored")
    named = {checkpoints[field].base for field in adapters}
    if base is None and len(adapters) == 2:
        notes.append("BEFORE, AFTER: adapters, compared by their products without base weights")
        if len(named) > 1:
            notes.append(
                f"BEFORE, AFTER: their base models have other names: {' and '.join(map(str, named))}"
            )
    pairing = paired(sides["BEFORE"], sides["AFTER"], strict)
    return replace(pairing, left_out=(*left_out, *pairing.left_out)), notes


def _said(checkpoints: dict[str, Checkpoint], what: str) -> tuple[str, ...]:
    sentences: Sequence[tuple[str, str]] = [
        (field, sentence)
        for field, checkpoint in checkpoints.items()
        for sentence in getattr(checkpoint, what)
    ]
    return tuple(f"{field}: {sentence}" for field, sentence in sentences)
