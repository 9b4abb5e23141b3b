"""Which scores a run records beside the benefit of each block, and which facts about clients this takes."""

from __future__ import annotations

from fedtlu_fast.config import RunConfig
from fedtlu_fast.registry import usable
from fedtlu_fast.scoring.block_metrics import OF_CLIENTS, asked_by
from fedtlu_fast.simulation.benefit import RecordedScore

BENEFIT = "benefit"
"""The metric that is the benefit itself."""


def recorded_scores(config: RunConfig) -> tuple[RecordedScore, ...]:
    """Returns all known metrics, as means over layers and pooled; none unless `evaluation.benefit` is set.

    Eq. 1 is recorded by matrices and by vectors too. Left out are metrics that this run's aggregation rule
    cannot have, and those of single clients where `privacy` lets no part look at them. Those of the clients'
    mean norms use the layers that the selector uses, because the norms of blocks are summed over the clients
    as they arrive.
    """
    if not config.evaluation.benefit:
        return ()
    hidden: set[str] = set()
    if config.privacy.on or config.privacy.sums is not None:
        hidden = set(OF_CLIENTS)
    elif not config.aggregation.rule.takes_sums:
        hidden = {"client_norms"}
    known = [name for name in usable("metric") if not hidden & asked_by((name,))]
    own = [metric for metric in config.selection.selector.metrics if metric not in known]
    judged = [name for name in (*known, *own) if name != BENEFIT]
    layers = config.selection.selector.scored_layers
    found = [
        RecordedScore(metric, pooling, layers if "client_norms" in asked_by((metric,)) else "all")
        for metric in judged
        for pooling in ("mean", "pooled")
    ]
    return (*found, RecordedScore("excess", "mean", "matrices"), RecordedScore("excess", "mean", "vectors"))


def asked_facts(config: RunConfig) -> frozenset[str]:
    """Returns the facts that the selector and the recorded scores need beside the aggregate."""
    recorded = tuple({score.metric for score in recorded_scores(config)})
    return config.selection.selector.asked() | asked_by(recorded)
