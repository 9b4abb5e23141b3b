"""The score history of a run: how stable its ranking of blocks is, and which kinds of layers decide it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.report.aggregate.kinds import KindShare, has_layer_values, kind_shares
from fedtlu_fast.report.aggregate.stability import (
    GroupHistory,
    Spread,
    Stability,
    group_histories,
    rank_stability,
    taus,
)
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.runs.directory import SELECTION, RunDirectory
from fedtlu_fast.runs.facts import WEIGHTS
from fedtlu_fast.runs.reading import trusted_rows
from fedtlu_fast.scoring import Pooling
from fedtlu_fast.scoring.units import scored_layout
from fedtlu_fast.selection import Keep, Selector, decided_share, server_room

ALL_GROUPS = "all groups"


@dataclass(frozen=True)
class ScoreHistory:
    """What the targeted rounds of a run show about its scores.

    Attributes:
        groups: the scores and choices of each group of like blocks.
        stability: how much of the ranking survives, by group and lag.
        kinds: what each kind of layer adds to a block's score, by group.
        share: the share of the parameters over which selection decides; see `decided_share`.
        metric: the metric that ranks the blocks.
        pooling: how the values of layers are combined to the value of a block.
        of_layers: whether the metric has values for layers; if not, there are no `kinds`.
    """

    groups: list[GroupHistory]
    stability: list[Stability]
    kinds: list[KindShare]
    share: float
    metric: str = "excess"
    pooling: Pooling = "mean"
    of_layers: bool = True


def score_history(
    selection: Sequence[dict[str, Any]],
    layout: ParameterLayout,
    selector: Selector | None = None,
    keep: Keep | None = None,
) -> ScoreHistory:
    """Computes the history of a run from its selection.jsonl and its layout; `RunResult` has both.

    Args:
        selection: the rows of selection.jsonl.
        layout: the layout of the model.
        selector: the selector of the run, which knows by which metric and layers it scored the blocks; None
            for Eq. 1 over all layers.
        keep: the blocks that the run keeps in each group; None if it is unknown: then selection decides over
            all groups of like blocks.
    """
    scored = layout if selector is None else scored_layout(layout, selector.scored_layers)
    metric = "excess" if selector is None else selector.ranks_by
    groups = group_histories(selection, scored)
    kinds = kind_shares(selection, scored, metric)
    pooling: Pooling = "mean" if selector is None else selector.pooling
    share = layout.grouped_share
    if selector is not None and keep is not None:
        share = decided_share(selector, server_room(selector, layout, keep))
    of_layers = has_layer_values([row for row in selection if not row["warmup"]], metric)
    return ScoreHistory(groups, rank_stability(groups), kinds, share, metric, pooling, of_layers)


def read_history(path: Path) -> tuple[RunSettings, ScoreHistory]:
    """Reads settings and history of a run from its directory; the run may still be in progress.

    Raises:
        InputError: there is no run, no checkpoint yet (the layers' shapes come from it), or nothing to rank.
    """
    settings, selection, layout = read_selection(path)
    if all(row["warmup"] for row in selection):
        raise InputError("RUN_DIR", str(path), "a run with targeted rounds; so far all were warm-up")
    return settings, score_history(selection, layout, settings.made_selector(), settings.keep)


def read_selection(path: Path) -> tuple[RunSettings, list[dict[str, Any]], ParameterLayout]:
    """Reads settings, selection.jsonl and layout of a run of a model with like blocks.

    Raises:
        InputError: there is no run, no round, no checkpoint yet (the layers' shapes come from it), or no like
            blocks.
    """
    directory, _ = RunDirectory.open(path, "RUN_DIR")
    settings = RunSettings.read(path)
    selection = trusted_rows(directory)[SELECTION]
    if not selection:
        raise InputError("RUN_DIR", str(path), f"a run with a {SELECTION} of one round or more")
    layout = read_layout(directory, selection, settings)
    if not layout.groups:
        raise InputError("RUN_DIR", str(path), "a run of a model with like blocks; this one has none")
    return settings, selection, layout


def read_layout(
    directory: RunDirectory, selection: Sequence[dict[str, Any]], settings: RunSettings
) -> ParameterLayout:
    """Reads the layout of a run's model from its latest checkpoint.

    Args:
        directory: the directory of the run.
        selection: the rows of its selection.jsonl, one or more.
        settings: the settings of the run.

    Raises:
        InputError: there is no whole checkpoint.
    """
    shapes = _shapes(directory.checkpoints, list(selection[0]["layers"]))
    return ParameterLayout.from_shapes(shapes, settings.granularity, blocks=settings.blocks)


def stability_cells(history: ScoreHistory) -> tuple[list[str], list[list[str]]]:
    """Returns heads and cells of the table of ranks, formatted."""
    heads = ["group", "rounds apart", "pairs", "Kendall's tau", "overlap of choices", "by chance"]
    cells = [
        [
            row.group or ALL_GROUPS,
            str(row.lag),
            str(row.tau.count),
            _spread(row.tau, signed=True),
            _spread(row.overlap),
            "-" if row.by_chance is None else f"{row.by_chance:.2f}",
        ]
        for row in history.stability
    ]
    return heads, cells


def kind_cells(history: ScoreHistory) -> tuple[list[str], list[list[str]]]:
    """Returns heads and cells of the table of kinds of layers, formatted."""
    heads = [
        "group",
        "kind",
        "layers",
        "parameters",
        "share of variance",
        "tau of its own ranking",
        "overlap",
    ]
    cells = [
        [
            row.group,
            row.kind,
            str(row.layers),
            f"{100 * row.parameters:.1f}%",
            _spread(row.variance, percent=True),
            _spread(row.tau, signed=True),
            _spread(row.overlap),
        ]
        for row in history.kinds
    ]
    return heads, cells


def history_json(selector: str, history: ScoreHistory) -> dict[str, Any]:
    """Returns the whole history, ready for JSON.

    Args:
        selector: the name of the run's selector.
        history: see `read_history`.
    """
    return {
        "selector": selector,
        "metric": history.metric,
        "pooling": history.pooling,
        "selection_share": history.share,
        "stability": [asdict(row) for row in history.stability],
        "kinds": [asdict(row) for row in history.kinds],
        "groups": {
            group.group: {
                "blocks": list(group.blocks),
                "rounds": list(group.rounds),
                "tau_to_next": taus(group).tolist(),
                "chosen_share": group.chosen.mean(axis=0).tolist(),
            }
            for group in history.groups
        },
    }


def _shapes(checkpoints: Path, names: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Reads the shapes of these layers from the header of the latest checkpoint."""
    held = sorted(checkpoints.glob(f"round-*/{WEIGHTS}"), key=lambda file: int(file.parent.name[6:]))
    if not held:
        raise InputError(
            "RUN_DIR",
            str(checkpoints),
            "a run with a checkpoint",
            "One is written every checkpoint.every rounds.",
        )
    try:
        with safe_open(str(held[-1]), framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise InputError("RUN_DIR", str(held[-1]), f"a whole checkpoint of this run; {error}") from error


def _spread(value: Spread, *, signed: bool = False, percent: bool = False) -> str:
    if value.mean is None:
        return "-"
    form, scale, unit = (".0f", 100, "%") if percent else (".2f", 1, "")
    text = f"{scale * value.mean:{'+' if signed else ''}{form}}{unit}"
    return text if value.std is None else f"{text} ± {scale * value.std:{form}}"
