"""The interface of an aggregation rule: many clients' changes become one.

To write your own, subclass `AggregationRule`, or give a function ``(updates [K, P], weights [K]) -> change
[P]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedtlu_fast.aggregation.stack import Stack
from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.parts import part


@dataclass(frozen=True)
class Start:
    """What a rule knows before the clients' vectors arrive.

    Attributes:
        base: [P] float32, the global parameters, from which all clients start. Do not change it.
        cohort: the largest number of clients that can arrive.
        backend: which backend runs the kernels.
        layout: of the model; None outside of a run.
        round: the number of the round, from 1.
    """

    base: Tensor
    cohort: int
    backend: str = "auto"
    layout: ParameterLayout | None = None
    round: int = 1


@dataclass(frozen=True)
class Aggregated:
    """What a rule makes of a cohort.

    Attributes:
        change: [P], the aggregated change; zeros when no client arrived.
        kept: the places (from 0, in the order of arrival) of the clients of which the change is made,
            ascending, if the rule chooses among clients. It is empty when too few clients arrived for a
            choice; then the round changes nothing. None for a rule that takes all clients.
    """

    change: Tensor
    kept: list[int] | None = None


class AggregationRule(ABC):
    """Makes one change of the vectors of a cohort, which arrive one client at a time.

    The vectors are sound: finite, and not so large that their sums overflow (`soundness`). A round calls
    `start` once, `add` for each client in the order of the cohort, and `finish` once. The state is whatever
    `start` returns; `add` may change it in place.

    Attributes:
        takes_sums: whether `add_sum` works, so that clients can be trained and summed several at a time.
        averages: whether the change is a mean of the clients' changes with their weights, each perhaps
            scaled. Only then can clients send chosen blocks: what a client does not send is no change of
            zero.
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
        """The directory in which the kept vectors lie; None for memory."""
        return None

    def check(self, cohort: int) -> None:  # noqa: B027 (most rules take any cohort)
        """Refuses a cohort for which the parameters make no sense; called before the first round.

        Raises:
            InputError: its field is the name of the parameter.
        """

    @abstractmethod
    def start(self, start: Start) -> Any:
        """An empty state for one round."""

    @abstractmethod
    def add(self, state: Any, client: int, weight: float, vector: Tensor) -> Any:
        """The state with one client more.

        Args:
            state: what `start` or the last `add` returned.
            client: the client's number.
            weight: usually the number of its samples.
            vector: [P], its parameters after training; its memory is used again after this call.
        """

    def add_sum(self, state: Any, weight: float, partial: Tensor) -> Any:
        """The state with some clients more whose weighted changes are summed already.

        Args:
            state: see `add`.
            weight: the sum of their weights n_k.
            partial: [P], ``sum_k n_k (w_k - w)``.
        """
        raise NotImplementedError(f"{type(self).__name__} needs the vector of every client")

    @abstractmethod
    def finish(self, state: Any) -> Aggregated:
        """The aggregated change of the clients that arrived."""


class StackedRule(AggregationRule):
    """Base of rules that need all vectors of a cohort together: 4 K P bytes (see `Stack`)."""

    spill: str | None = None

    @property
    def keeps_vectors(self) -> bool:
        """Yes."""
        return True

    @property
    def spill_directory(self) -> str | None:
        """See `AggregationRule`."""
        return self.spill

    def start(self, start: Start) -> Arrived:
        """Makes room for the cohort."""
        return Arrived(start, Stack(start.base, start.cohort, self.spill), [], [])

    def add(self, state: Arrived, client: int, weight: float, vector: Tensor) -> Arrived:
        """Copies the vector onto the stack."""
        state.stack.add_(vector)
        state.clients.append(client)
        state.weights.append(weight)
        return state


@dataclass(frozen=True)
class Arrived:
    """The clients of a round so far.

    Attributes:
        start: of the round.
        stack: their vectors.
        clients: their numbers.
        weights: their weights.
    """

    start: Start
    stack: Stack
    clients: list[int]
    weights: list[float]


@part
class FunctionRule(StackedRule):
    """A rule made of a function.

    Attributes:
        function: ``(updates [K, P], weights [K] float64) -> change [P]``; the updates are the clients'
            changes. The change may be a tensor, a NumPy array or a list, of whole numbers too, and must be
            finite. Anything that is called like a function serves.
    """

    function: Callable[[Tensor, Tensor], Any]

    def finish(self, state: Arrived) -> Aggregated:
        """What the function returns, as a change.

        Raises:
            InputError: the function raised, or what it returned is no finite vector [P] of numbers.
        """
        base, count = state.start.base, len(state.stack)
        if not count:
            return Aggregated(torch.zeros_like(base))
        updates = torch.stack([state.stack.row(place) for place in range(count)]) - base
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        try:
            found = self.function(updates, torch.tensor(state.weights, dtype=torch.float64))
        except Exception as error:
            raise InputError("rule", name, f"a function that takes [K, P] and [K]; {cause(error)}") from error
        return Aggregated(_change(name, found, base))


def _change(name: str, found: Any, base: Tensor) -> Tensor:
    """[P], of what a function of this name returned.

    Raises:
        InputError: it is no finite vector [P] of numbers.
    """
    expected = f"{name} to return the change, a tensor of shape {tuple(base.shape)}"
    try:
        change = torch.as_tensor(found).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError("rule", type(found).__name__, f"{expected}; {cause(error)}") from error
    if change.shape != base.shape:
        raise InputError("rule", tuple(change.shape), expected)
    if change.dtype == torch.bool or change.is_complex():
        raise InputError("rule", str(change.dtype), f"{expected}, of real numbers")
    change = change.to(base.device, base.dtype)
    wrong = int((~change.isfinite()).sum())
    if wrong:
        given = f"{wrong} of {len(change)} numbers that are NaN or infinite"
        raise InputError("rule", given, f"{expected}, finite as the updates are", "Look for divisions by 0.")
    return change.contiguous()
