"""Which arms choose by the loss on samples that they should not know: upper bounds, and no methods."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.registry import find
from fedtlu_fast.runs.results import ArmResult

HELD_OUT = "held_out"
"""The fact that parts ask for; see `block_metrics.FACTS`."""


def looks_at_held_out(run: ArmResult) -> bool:
    """Tells whether server or clients of a run chose by samples that were kept back from training.

    Selectors and metrics declare it themselves (`Selector.needs`, `block_metrics.asks`). The summary names
    the server's selector, its metric and the clients' selector; a metric of clients is known only from the
    name of the arm (``top:benefit@2``, ``top@2+metric=benefit``). A part of the user's that cannot be found
    here counts as one that does not look.

    Args:
        run: one run of the arm.
    """
    summary = run.summary
    if _asks("selector", summary.get("selector"), "metric", [summary.get("metric")]):
        return True
    head, *settings = run.selector.split("+")
    metrics = head.partition("@")[0].split(":")[1:]
    metrics += [
        setting.partition("=")[2]
        for setting in settings
        if setting.partition("=")[0] in ("metric", "client_selection.metric")
    ]
    return _asks("client_selector", summary.get("client_selector"), "client_metric", metrics)


def _asks(kind: str, selector: str | None, metric_kind: str, metrics: Iterable[str | None]) -> bool:
    """Whether a selector asks for held-out samples itself, or by a metric that it needs."""
    part = _found(kind, selector)
    if part is None:
        return False
    needs = getattr(part, "needs", ())  # of a class whose parameters decide it, this is a property
    named = needs if isinstance(needs, tuple | list) else ()
    marks = [part, *(_found(metric_kind, name) for name in (*named, *metrics))]
    return HELD_OUT in named or any(HELD_OUT in getattr(mark, "asks", ()) for mark in marks)


def _found(kind: str, name: str | None) -> Any:
    """Returns a part by its name; None if there is none."""
    if name is None or name == HELD_OUT:
        return None
    try:
        return find(kind, name, kind)
    except InputError:
        return None
