"""Implements FedTLU (arXiv 2412.17692), which chooses the best-scoring blocks of the aggregated change."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from fedtlu_fast.parts import part
from fedtlu_fast.registry import find
from fedtlu_fast.scoring import Pooling
from fedtlu_fast.scoring.units import ScoredLayers
from fedtlu_fast.selection.evidence import Evidence, Mask
from fedtlu_fast.selection.room import Room
from fedtlu_fast.selection.selector import Ranking
from fedtlu_fast.selection.told import check_told, warn_of_none


def _known(value: Any) -> Any:
    if isinstance(value, str):
        find("metric", value, "metric")
    return value


Metric = Annotated[str, BeforeValidator(_known)]
"""The name of a metric of blocks, checked when a part is made."""


class ByMetric(Ranking):
    """Ranks by one metric of the aggregated change; the base of `FedTLU` and `OverRounds`."""

    metric: str

    @property
    def needs(self) -> tuple[str, ...]:
        """Returns the metric's name."""
        return (self.metric,)

    def choose(self, evidence: Evidence, room: Room) -> Mask:
        """Chooses the best blocks, as many as there is room for.

        Raises:
            InputError: The metric has no number for any block in this round (`check_told`).
        """
        values = evidence.metrics[self.metric]
        check_told("metric", self.metric, values, evidence, room)
        warn_of_none(self.metric, values, evidence, room)
        return Ranking.choose(self, evidence, room)


@part
class FedTLU(ByMetric):
    """Chooses the best-scoring blocks of the aggregated change (FedTLU, arXiv 2412.17692).

    Attributes:
        metric: score of a block: excess (Eq. 1) | l2_per_parameter | relative_change (these need only the
            aggregate) | agreement | signal | signal_to_noise | clipped_norms | votes | pairs (of clients'
            changes) | aligned (with the gradient on evaluation.held_out) | benefit (measured on them) |
            package.module:function; all but excess are ours.
        ddof: kind of standard deviation in Eq. 1: 0 of a population | 1 of a sample; the paper does not say.
        pooling: score of a block: mean (of its layers' scores) | pooled (as one layer).
        scored_layers: layers that make a block's score: all | matrices | vectors (norms and biases); chosen
            blocks are applied whole.
    """

    metric: Metric = "excess"
    ddof: Literal[0, 1] = 1
    pooling: Pooling = "mean"
    scored_layers: ScoredLayers = "all"
