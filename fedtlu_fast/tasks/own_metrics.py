"""The metrics of a user's own task, and the figures that they become in logs, tables and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedtlu_fast.errors import InputError, not_one_of
from fedtlu_fast.tasks.called import Function
from fedtlu_fast.tasks.metrics import LOSS, PERPLEXITY, Better, Figure

TAKEN = ("loss", "perplexity", "macro_f1", "f1")
"""Names that metrics cannot have, because rows of logs already have them."""


@dataclass(frozen=True)
class Metric:
    """A metric, with its title and its direction.

    Attributes:
        function: a function of (model, batch) or of (outputs, targets), like a loss; it returns [B] or a
            scalar.
        better: whether ``higher`` or ``lower`` values are better.
        title: its title in tables and figures; empty: its name.
        percent: whether it is a share, which is shown in per cent.

    Examples:
        >>> error = Metric(torch.nn.functional.l1_loss, better="lower", title="mean absolute error")
    """

    function: Function
    better: Better = "higher"
    title: str = ""
    percent: bool = False

    def __post_init__(self) -> None:
        if self.better not in ("higher", "lower"):
            raise not_one_of("better", self.better, ("higher", "lower"))


def figures_of(metrics: Mapping[str, Metric], headline: str | None) -> tuple[Figure, ...]:
    """Returns the figures of these metrics, the headline first.

    Raises:
        InputError: a name is reserved or is not an identifier, or the headline is not one of the names.
    """
    for name in metrics:
        if name in TAKEN or not (isinstance(name, str) and name.isidentifier()):
            raise InputError("metrics", name, f"names like Python's variables, other than {', '.join(TAKEN)}")
    found = {
        name: Figure(name, one.better, one.title or name.replace("_", " "), one.percent)
        for name, one in metrics.items()
    }
    if headline is None:
        return tuple(found.values())
    known = {**found, LOSS.name: LOSS, PERPLEXITY.name: PERPLEXITY}
    if headline not in known:
        raise not_one_of("headline", headline, known)
    return (known[headline], *(figure for name, figure in found.items() if name != headline))
