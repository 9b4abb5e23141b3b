"""FedTLU (arXiv 2412.17692): the best-scoring blocks of the aggregated change."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator

from fedtlu_fast.parts import part
from fedtlu_fast.registry import find
from fedtlu_fast.scoring import Pooling
from fedtlu_fast.scoring.block_metrics import ScoredLayers
from fedtlu_fast.selection.selector import Ranking


def _known(value: Any) -> Any:
    if isinstance(value, str):
        find("metric", value, "metric")
    return value


@part
class FedTLU(Ranking):
    """The best-scoring blocks of the aggregated change (FedTLU, arXiv 2412.17692).

    Attributes:
        metric: what fedtlu ranks by: excess (Eq. 1) | l2_per_parameter | relative_change | agreement (between
            the clients) | package.module:function; all but the first are ours.
        ddof: which std Eq. 1 means: 0 population, 1 sample; the paper does not say.
        pooling: a block's score: mean of its layers' scores | pooled as one layer.
        scored_layers: which layers make a block's score: all | matrices | vectors (norms and biases); whole
            blocks are applied.
    """

    metric: Annotated[str, BeforeValidator(_known)] = "excess"
    ddof: Literal[0, 1] = 1
    pooling: Pooling = "mean"
    scored_layers: ScoredLayers = "all"

    @property
    def needs(self) -> tuple[str, ...]:
        """Its metric."""
        return (self.metric,)
