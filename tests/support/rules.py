"""Feeds vectors to an aggregation rule as a round does."""

from collections.abc import Iterable, Sequence

from torch import Tensor

from fedtlu_fast.aggregation import Aggregated, AggregationRule, Start


def aggregated(
    rule: AggregationRule,
    base: Tensor,
    clients: Sequence[Tensor] | Tensor,
    weights: Iterable[float] | None = None,
    cohort: int | None = None,
    backend: str = "auto",
) -> Aggregated:
    """Returns a rule's result for these vectors, whose memory is reused; the cohort may be larger."""
    state = rule.start(Start(base, cohort or max(1, len(clients)), backend))
    for number, (client, weight) in enumerate(zip(clients, weights or [5] * len(clients), strict=True)):
        vector = client.clone()
        state = rule.add(state, number, weight, vector)
        vector.fill_(7.0)
    return rule.finish(state)
