"""The interface of the training engines, and the types of their input and output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Literal, Protocol

from torch import Tensor

from fedtlu_fast.data.population import Samples
from fedtlu_fast.part_memory import Value
from fedtlu_fast.scoring import LayerStats
from fedtlu_fast.soundness import sound

Blocks = tuple[int, ...]
"""Indices of blocks of a layout, ascending."""
Want = Literal["blocks", "correction", "each vector", "own model", "second model"]
"""A request that a part makes of an engine: that clients train chosen blocks only ("blocks"), that a vector
is added to their gradients ("correction"), that the server sees each client's vector, that clients start from
a model of their own, or that they train a second model beside the first."""

ONE_SUM = "several clients are trained together, and only the sum of their changes is kept"
"""Why an engine that trains groups cannot give the server each client's vector."""
OWN_MODEL = "each client starts from a model of its own"
"""Why an engine that trains groups cannot train clients that start from models of their own."""
SECOND_MODEL = "each client trains a second model beside the first"
"""Why an engine that trains groups cannot train clients that have a second model."""


@dataclass(frozen=True)
class SecondModel:
    """A model that a client trains beside the model that it sends, on the same samples.

    Attributes:
        params: [P] float32, the parameters at the start of its training; not changed.
        buffers: [Q] float32, the floating-point buffers at the start of its training; not changed.
        mu: strength of the proximal term ``mu/2 ||v - w||^2`` that holds this model's parameters v to w, the
            `ClientStart.params`.
    """

    params: Tensor
    buffers: Tensor
    mu: float = 0.0


@dataclass(frozen=True)
class ClientStart:
    """The model, the samples and the requests with which one client's local training starts.

    Attributes:
        params: [P] float32, the parameters; not changed by training.
        buffers: [Q] float32, the floating-point buffers; not changed by training.
        samples: the client's training samples, on the model's device.
        blocks: indices of the blocks that the client trains; None: all blocks.
        first: indices of the blocks that the client trains in a separate pass before it trains `blocks`
            (FedRep).
        correction: [P] float32, added to the gradient of every local step before clipping; None: nothing.
        second: a second model that the client trains as well; None: it has none.
    """

    params: Tensor
    buffers: Tensor
    samples: Samples
    blocks: Blocks | None = None
    first: Blocks = ()
    correction: Tensor | None = None
    second: SecondModel | None = None

    def corrected(self, term: Tensor) -> ClientStart:
        """Returns this start with `term` [P] added to its correction."""
        return replace(self, correction=term if self.correction is None else self.correction + term)


@dataclass(frozen=True)
class ClientUpdate:
    """The result of one client's local training, which the client sends to the server.

    The `params` and `buffers` that an engine returns are its own working vectors, and the training of the
    next client overwrites them. Use them before that.

    Attributes:
        params: [P] float32, the client's parameters after local training.
        buffers: [Q] float32, the client's floating-point buffers after local training.
        samples: number of samples that the client trained on.
        steps: number of optimizer steps that the client took.
        loss: mean training loss over the steps.
        weight: the client's weight in the mean; None: its number of samples.
        sent: indices of the blocks that the client sends; None: all blocks.
        second: parameters [P] and buffers [Q] of the second model after its training; None: there is none.
        memory: values that the client step which returns this update remembers about the client until the
            client's next round.
    """

    params: Tensor
    buffers: Tensor
    samples: int
    steps: int
    loss: float
    weight: float | None = None
    sent: Blocks | None = None
    second: tuple[Tensor, Tensor] | None = None
    memory: Mapping[str, Value] = field(default_factory=dict)

    @property
    def counts(self) -> float:
        """The client's weight in the mean."""
        return self.samples if self.weight is None else self.weight

    def is_sound(self, buffers: Tensor) -> bool:
        """Tells whether the loss is finite, and parameters and changes of buffers are sound (`soundness`).

        Args:
            buffers: [Q] float32, the buffers at the start of the training.
        """
        return isfinite(self.loss) and sound(self.params) and sound(self.buffers - buffers)


@dataclass(frozen=True)
class ClientSum:
    """The weighted sum of the changes of K clients, with one number for each client beside it.

    Attributes:
        change: [P] float32, ``sum_k weight_k (w_k - w)`` over the clients that are `finite`, summed in
            float64 and rounded once.
        samples: [K], number of samples that each client trained on.
        losses: [K], each client's mean training loss over its steps.
        finite: [K], whether the client's loss is finite and its parameters are sound (`soundness`).
        weights: [K], each client's weight in the mean.
        stats: statistics of the layers of every finite client's change, in the order of `stats_clients`; None
            unless the caller asked for them.
        stats_weights: weights of the clients in `stats`, in the same order.
        stats_clients: places (from 0) of the clients in `stats` among the K clients, in the same order.
        values: [., S] float32 on the CPU, the change of every finite client at `Looks.places`, in the same
            order; None unless the caller asked for them.
    """

    change: Tensor
    samples: list[int]
    losses: list[float]
    finite: list[bool]
    weights: list[float] = field(default_factory=list)
    stats: LayerStats | None = None
    stats_weights: list[float] = field(default_factory=list)
    stats_clients: list[int] = field(default_factory=list)
    values: Tensor | None = None


@dataclass(frozen=True)
class Looks:
    """What the caller wants to know of every client's change.

    Attributes:
        stats: whether it wants the statistics of the layers.
        places: [S], the places at which it wants the values; None: at none.
    """

    stats: bool = False
    places: Tensor | None = None


Finish = Callable[[int, ClientUpdate], ClientUpdate]
"""Takes a client's place in the group (from 0) and its trained update; returns the update that it sends."""


class Trainer(Protocol):
    """An engine that trains one client at a time."""

    def supports(self, want: Want, clients_per_batch: int = 1) -> str | None:
        """Returns the reason why the engine cannot do what a part wants, or None if it can.

        Args:
            want: the part's request; see `Want`.
            clients_per_batch: number of clients that the engine trains in one call.
        """
        ...

    def train_one(self, start: ClientStart, round_index: int, client: int) -> ClientUpdate:
        """Trains one client and returns its update.

        Args:
            start: the model, samples and requests with which the client starts.
            round_index: the round. All random draws depend on seed, round and client number only.
            client: the client's number.
        """
        ...


class GroupTrainer(Trainer, Protocol):
    """An engine that trains several clients in one call.

    Attributes:
        shows_vectors: whether the caller can read and change each client's vector before it is added to the
            sum.
    """

    shows_vectors: bool

    def train_group(
        self,
        starts: Sequence[ClientStart],
        round_index: int,
        clients: Sequence[int],
        finish: Finish | None,
        largest: float,
        looks: Looks,
    ) -> ClientSum:
        """Trains K clients from the same parameters and returns the sum of their changes.

        Args:
            starts: [K], the starts of the clients; all have the same `params`.
            round_index: the round. All random draws depend on seed, round and client number only.
            clients: [K], the clients' numbers.
            finish: called with every client's update before it is added, if the engine `shows_vectors`;
                None: clients send the result of their training as it is.
            largest: upper limit of a client's weight; only `finish` can set a larger one.
            looks: what to return of every client; only an engine that `shows_vectors` does.
        """
        ...
