"""Checks the results of rules and server optimizers, because these may be the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from torch import Tensor

from fedtlu_fast.aggregation.rule import FIELD, Aggregated, AggregationRule, check_finite
from fedtlu_fast.aggregation.server_optimizer import OptimizerState, ServerOptimizer
from fedtlu_fast.errors import InputError, kind_of
from fedtlu_fast.own_errors import is_ours
from fedtlu_fast.remembered import server_tensors


def check_aggregated(rule: AggregationRule, found: Any, base: Tensor, arrived: int) -> Aggregated:
    """Returns the result of a rule's `finish` after checking it.

    Our own rules give finite changes, because what arrives is sound (`soundness`); only a user's are checked.

    Args:
        rule: the rule.
        found: the object that it returned.
        base: [P] float32, the parameters with which the clients start.
        arrived: number of clients that the rule has received one by one.

    Raises:
        InputError: it is no `Aggregated`, its change is no finite vector like `base`, its places are wrong,
            or it remembers what checkpoints cannot hold.
    """
    field, method = FIELD, f"{type(rule).__name__}.finish()"
    if not isinstance(found, Aggregated):
        raise InputError(field, kind_of(found), f"{method} to return an Aggregated(change)")
    _check_vector(field, f"{method} to return a change", found.change, base)
    made: Aggregated = found
    if made.memory:
        made = replace(made, memory=server_tensors(f"{field}: memory", made.memory))
    if not is_ours(rule):
        expected = f"{method} to return a change of finite numbers, as the clients' vectors are"
        check_finite(found.change, expected)
    if found.kept is None and not rule.chooses:
        return made
    if not rule.chooses:
        expected = f"{method} to return kept=None, or {type(rule).__name__} to say `chooses = True`"
        raise InputError(field, f"kept={found.kept!r}", expected)
    if not _are_places(found.kept, arrived):
        expected = (
            f"{method} to keep places of the {arrived} clients that arrived, from 0, ascending, each once"
        )
        raise InputError(field, f"kept={found.kept!r}", expected)
    return made


def check_step(optimizer: ServerOptimizer, found: Any, change: Tensor) -> tuple[Tensor, OptimizerState]:
    """Returns the result of a server optimizer's `step` after checking it.

    Args:
        optimizer: the optimizer.
        found: the object that it returned.
        change: [P] float32, the change that it received.

    Raises:
        InputError: it is no pair of a vector like the change and a mapping from names to tensors that
            checkpoints can hold.
    """
    field, method = "aggregation.server_optimizer", f"{type(optimizer).__name__}.step()"
    if not isinstance(found, tuple) or len(found) != 2:
        raise InputError(field, kind_of(found), f"{method} to return a pair: the step and the new state")
    step, state = found
    _check_vector(field, f"{method} to return a step", step, change)
    if not isinstance(state, Mapping):
        raise InputError(field, kind_of(state), f"{method} to return a state that maps names to tensors")
    return step, server_tensors(f"{field}: state", state)


def _check_vector(field: str, expected: str, found: Any, like: Tensor) -> None:
    right = isinstance(found, Tensor) and found.shape == like.shape and found.dtype == like.dtype
    if not right or found.device != like.device:
        what = f"{expected}, a tensor of {like.dtype} and shape {tuple(like.shape)} on {like.device}"
        raise InputError(field, kind_of(found), what)


def _are_places(kept: Any, arrived: int) -> bool:
    if not isinstance(kept, list) or any(
        isinstance(place, bool) or not isinstance(place, int | np.integer) for place in kept
    ):
        return False
    return all(0 <= place < arrived for place in kept) and all(a < b for a, b in pairwise(kept))
