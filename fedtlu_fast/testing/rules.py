"""The checks of an aggregation rule."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from fedtlu_fast.aggregation import Aggregated, AggregationRule, FunctionRule, Start
from fedtlu_fast.errors import cause
from fedtlu_fast.parts import make
from fedtlu_fast.randomness import generator
from fedtlu_fast.registry import find
from fedtlu_fast.testing.common import LAYOUT, ConformanceError, found_again, must, same


def check_rule(rule: str | AggregationRule | Callable[[Tensor, Tensor], Tensor], cohort: int = 7) -> None:
    """Checks an aggregation rule: its change, that it changes nothing else, and that processes can have it.

    The change is a finite vector of the parameters' shape and dtype. It is the same bits every time. The rule
    neither changes what it is given nor relies on a client's vector after `add`. No arrival at all is no
    change. A rule that takes sums makes the same of them, but for rounding. The rule survives pickling, and
    is found again by its name.

    Args:
        rule: a rule, a function ``(updates [K, P], weights [K]) -> [P]``, or the name of one.
        cohort: how many clients arrive.

    Raises:
        ConformanceError: a promise is broken.
        InputError: there is no such rule, or it does not take such a cohort.
    """
    given: Any = find("rule", rule, "rule") if isinstance(rule, str) else rule
    given = make(given, {}) if inspect.isclass(given) else given
    made: AggregationRule = given if isinstance(given, AggregationRule) else FunctionRule(given)
    made.check(cohort)
    base, vectors = _vectors(cohort)
    for count in (cohort, 1, 0):
        first = _aggregated(made, base, vectors[:count], cohort)
        again = _aggregated(made, base, vectors[:count], cohort)
        alike = same(first.change, again.change)
        must(alike, f"{count} clients: the second time the change is another (a rule remembers no round)")
        must(first.kept == again.kept, f"{count} clients: the second time other clients are kept")
        if not count:
            must(not bool(first.change.any()), "no client arrives: the change is not zero")
    whole = _aggregated(made, base, vectors, cohort)
    if made.takes_sums:
        found = _aggregated_sums(made, base, vectors, cohort)
        close = torch.allclose(found.change, whole.change, rtol=1e-4, atol=1e-6)
        must(close, "add_sum of all clients gives another change than add of each")
    copy = found_again("rule", made)
    again = _aggregated(copy, base, vectors, cohort)
    must(same(again.change, whole.change), "the rule that is found again by its name makes another change")


def _vectors(cohort: int) -> tuple[Tensor, list[Tensor]]:
    draws = generator(0, "conformance rule")
    base = torch.from_numpy(draws.normal(0, 1, LAYOUT.size)).float()
    changes = draws.normal(0.05, 0.1, (cohort, LAYOUT.size))
    return base, [base + torch.from_numpy(change).float() for change in changes]


def _aggregated(rule: AggregationRule, base: Tensor, vectors: Sequence[Tensor], cohort: int) -> Aggregated:
    """What the rule makes of these vectors, given in memory that is used again."""
    given, memory, what = base.clone(), torch.empty_like(base), f"{len(vectors)} clients"
    try:
        state = rule.start(Start(given, cohort, layout=LAYOUT))
        for client, vector in enumerate(vectors):
            memory.copy_(vector)
            state = rule.add(state, 10 * client, client + 1.0, memory)
            must(same(memory, vector), f"{what}: add changed the vector of client {10 * client}")
            memory.fill_(torch.nan)
        found = rule.finish(state)
    except ConformanceError:
        raise
    except Exception as error:
        raise ConformanceError(f"{what}: the rule raised {cause(error)}") from error
    must(same(given, base), f"{what}: the rule changed the global parameters")
    return _checked(rule, found, base, len(vectors))


def _aggregated_sums(
    rule: AggregationRule, base: Tensor, vectors: Sequence[Tensor], cohort: int
) -> Aggregated:
    state = rule.start(Start(base.clone(), cohort, layout=LAYOUT))
    for first in range(0, len(vectors), 3):
        weights = [client + 1.0 for client in range(first, min(first + 3, len(vectors)))]
        parts = [weight * (vectors[int(weight) - 1] - base) for weight in weights]
        state = rule.add_sum(state, sum(weights), torch.stack(parts).sum(dim=0))
    return _checked(rule, rule.finish(state), base, len(vectors))


def _checked(rule: AggregationRule, found: Any, base: Tensor, arrived: int) -> Aggregated:
    what = f"{arrived} clients"
    must(isinstance(found, Aggregated), f"{what}: finish returned {type(found).__name__}, not Aggregated")
    change, kept = found.change, found.kept
    right = isinstance(change, Tensor) and (change.shape, change.dtype) == (base.shape, base.dtype)
    must(right, f"{what}: the change has to be a tensor of shape {tuple(base.shape)} and dtype {base.dtype}")
    must(bool(torch.isfinite(change).all()), f"{what}: the change of finite vectors is not finite")
    if kept is not None or rule.chooses:
        must(rule.chooses, f"{what}: finish says which clients were kept, and chooses is False")
        right = kept is not None and kept == sorted(set(kept)) and all(0 <= at < arrived for at in kept)
        must(right, f"{what}: kept has to hold places of arrivals, ascending; it is {kept}")
    return Aggregated(change.clone(), kept)
