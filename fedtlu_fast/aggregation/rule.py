"""The interface of an aggregation rule, which turns many clients' changes into one.

To write your own, subclass `AggregationRule`, or give a function ``(updates [K, P], weights [K]) -> change
[P]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.aggregation.stack import Stack
from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.parts import part

FIELD = "aggregation.rule"
"""The setting that errors of a rule name."""


@dataclass(frozen=True)
class Start:
    """The facts that a rule receives before the clients' vectors arrive.

    Attributes:
        base: [P] float32, the global parameters, from which all clients start. Do not change it.
        cohort: the largest number of clients that can arrive.
        backend: the backend that runs the kernels.
        layout: the model's layout; None outside of a run.
        round: the number of the round, from 1.
        memory: the tensors that the rule remembered in the last round in which clients arrived, by name;
            empty before. Do not change them.
    """

    base: Tensor
    cohort: int
    backend: str = "auto"
    layout: ParameterLayout | None = None
    round: int = 1
    memory: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Aggregated:
    """The result of a rule for one cohort.

    Attributes:
        change: [P] float32, the aggregated change; zeros if no client arrived.
        kept: for a rule that chooses among clients, the places (from 0, in the order of arrival) of the
            clients from which the change is computed, ascending. It is empty if too few clients arrived for a
            choice; then the round changes nothing. None for a rule that takes all clients.
        memory: the tensors that the next `Start` holds, by name. They are saved with the run. Not used if no
            client arrived, or none was kept: then the rule keeps its memory.
    """

    change: Tensor
    kept: list[int] | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)


class AggregationRule(ABC):
    """Aggregates the vectors of a cohort, which arrive one client at a time, into one change.

    The vectors are sound: finite, and not so large that their sums overflow (`soundness`). A round calls
    `start` once, `add` for each client in the order of the cohort, and `finish` once. The rule chooses the
    type of its state, which `start` returns; `add` may change it in place. The state is of one round: what a
    rule wants to keep for the next one it returns as `Aggregated.memory`.

    Attributes:
        takes_sums: whether `add_sum` works, so that clients can be trained and summed several at a time.
        averages: whether the change is a weighted mean of the clients' changes, each of which may be scaled.
            Only then can clients send chosen blocks, because a block that is not sent must not count as a
            change of zero.
        chooses: whether the rule keeps some of the clients, and `finish` says which.
        max_share: the largest share of one client in the sum of the weights; None for no limit.
    """

    takes_sums: ClassVar[bool] = False
    averages: ClassVar[bool] = False
    chooses: ClassVar[bool] = False
    max_share: float | None = None

    @property
    def keeps_vectors(self) -> bool:
        """Whether the rule keeps the vectors of the whole cohort, 4 K P bytes."""
        return False

    @property
    def spill_directory(self) -> str | None:
        """The directory of the file with the kept vectors; None: they are in memory."""
        return None

    def check(self, cohort: int) -> None:  # noqa: B027 (most rules take any cohort)
        """Checks before the first round that the parameters fit the size of a cohort.

        Raises:
            InputError: they do not fit. The error's field is the name of the parameter.
        """

    @abstractmethod
    def start(self, start: Start) -> Any:
        """Returns an empty state for one round."""

    @abstractmethod
    def add(self, state: Any, client: int, weight: float, vector: Tensor) -> Any:
        """Adds one client and returns the new state.

        Args:
            state: the state that `start` or the last `add` returned.
            client: the client's number.
            weight: the client's weight, usually its number of samples.
            vector: [P], the client's parameters after training; its memory is reused after this call.
        """

    def add_sum(self, state: Any, weight: float, partial: Tensor) -> Any:
        """Adds several clients, whose weighted changes were summed before, and returns the new state.

        Args:
            state: see `add`.
            weight: the sum of the clients' weights n_k.
            partial: [P], ``sum_k n_k (w_k - w)``.
        """
        raise NotImplementedError(f"{type(self).__name__} needs the vector of every client")

    @abstractmethod
    def finish(self, state: Any) -> Aggregated:
        """Returns the aggregated change of the clients that arrived."""


class StackedRule(AggregationRule):
    """The base class of rules that need all vectors of a cohort together: 4 K P bytes (see `Stack`)."""

    spill: str | None = None

    @property
    def keeps_vectors(self) -> bool:
        """See `AggregationRule`. It is true."""
        return True

    @override
    @property
    def spill_directory(self) -> str | None:
        return self.spill

    def start(self, start: Start) -> Arrived:
        """Returns a state with room for the cohort."""
        return Arrived(start, Stack(start.base, start.cohort, self.spill), [], [])

    def add(self, state: Arrived, client: int, weight: float, vector: Tensor) -> Arrived:
        """Copies the vector onto the stack."""
        state.stack.add_(vector)
        state.clients.append(client)
        state.weights.append(weight)
        return state


@dataclass(frozen=True)
class Arrived:
    """The clients of a round that have arrived so far.

    Attributes:
        start: the facts with which the round began.
        stack: the clients' vectors.
        clients: the clients' numbers.
        weights: the clients' weights.
    """

    start: Start
    stack: Stack
    clients: list[int]
    weights: list[float]


@part
class FunctionRule(StackedRule):
    """Makes a function a rule.

    Attributes:
        function: ``(updates [K, P], weights [K]) -> change [P]``, all float32. The updates are the clients'
            changes. The weights are not normalised: they are the clients' numbers of samples, unless
            ``max_share`` or a client step says otherwise. The function may be any callable object. The change
            is a tensor, a NumPy array or a list of finite numbers, which may be integers.
    """

    function: Callable[[Tensor, Tensor], Any]

    def finish(self, state: Arrived) -> Aggregated:
        """Calls the function and returns its result as a change.

        Raises:
            InputError: the function raised an error, or its result is not a finite vector [P] of numbers.
        """
        base, count = state.start.base, len(state.stack)
        if not count:
            return Aggregated(torch.zeros_like(base))
        updates = torch.stack([state.stack.row(place) for place in range(count)]) - base
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        try:
            found = self.function(updates, updates.new_tensor(state.weights))
        except Exception as error:
            raise InputError(FIELD, name, f"a function that takes [K, P] and [K]; {cause(error)}") from error
        return Aggregated(_change(name, found, base))


def _change(name: str, found: Any, base: Tensor) -> Tensor:
    """Checks the result of a function of this name and returns it as a change [P].

    Raises:
        InputError: the result is not a finite vector [P] of numbers.
    """
    expected = f"{name} to return the change, a tensor of shape {tuple(base.shape)}"
    try:
        change = torch.as_tensor(found).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(FIELD, type(found).__name__, f"{expected}; {cause(error)}") from error
    if change.shape != base.shape:
        raise InputError(FIELD, tuple(change.shape), expected)
    if change.dtype == torch.bool or change.is_complex():
        raise InputError(FIELD, str(change.dtype), f"{expected}, of real numbers")
    change = change.to(base.device, base.dtype)
    check_finite(change, f"{expected}, finite as the updates are")
    return change.contiguous()


def check_finite(change: Tensor, expected: str) -> None:
    """Raises an error, which says what was expected, if a rule's change [P] has NaN or infinite numbers."""
    wrong = int((~change.isfinite()).sum())
    if wrong:
        given = f"{wrong} of {len(change)} numbers that are NaN or infinite"
        raise InputError(FIELD, given, expected, "Look for divisions by 0.")
