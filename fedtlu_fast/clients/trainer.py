"""What goes into a client's local training, what comes out of it, and the interface of the engines."""

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
"""What a part asks of an engine: that clients train chosen blocks only, that a vector is added to their
gradients, that the server sees each client's vector, that clients start from a model of their own, that they
train a second model beside."""

ONE_SUM = "clients are trained several at once, whose sum is all that is kept"
"""Why an engine that trains groups cannot give the server each client's vector."""
OWN_MODEL = "each client starts from a model of its own"
"""Why an engine that trains groups cannot train such clients."""
SECOND_MODEL = "each client trains a second model beside"
"""Likewise."""


@dataclass(frozen=True)
class SecondModel:
    """A model that a client trains beside the one that it sends, on the same samples.

    Attributes:
        params: [P] float32, where its training starts; not changed.
        buffers: [Q] float32, likewise.
        mu: strength of the proximal term ``mu/2 ||v - w||^2`` that holds it to w, the `params` of the start.
    """

    params: Tensor
    buffers: Tensor
    mu: float = 0.0


@dataclass(frozen=True)
class ClientStart:
    """What one client's local training starts from.

    Attributes:
        params: [P] float32, the parameters; not changed by training.
        buffers: [Q] float32, the floating-point buffers; not changed by training.
        samples: what the client trains on, on the model's device.
        blocks: indices of the blocks that it trains; None: all of them.
        first: indices of the blocks that it trains in a pass of their own before `blocks` (FedRep).
        correction: [P] float32, added to the gradient of every local step before clipping; None: nothing.
        second: a model that it trains beside; None: none.
    """

    params: Tensor
    buffers: Tensor
    samples: Samples
    blocks: Blocks | None = None
    first: Blocks = ()
    correction: Tensor | None = None
    second: SecondModel | None = None

    def corrected(self, term: Tensor) -> ClientStart:
        """This start with `term` [P] in its correction, beside what is there already."""
        return replace(self, correction=term if self.correction is None else self.correction + term)


@dataclass(frozen=True)
class ClientUpdate:
    """What a client sends back.

    An engine's `params` and `buffers` are its own working vectors: use them before the next client trains.

    Attributes:
        params: [P] float32, the client's parameters after local training.
        buffers: [Q] float32, its floating-point buffers.
        samples: how many samples it trained on.
        steps: optimizer steps taken.
        loss: mean training loss over the steps.
        weight: what the client counts in the mean; None: its samples.
        sent: indices of the blocks that it sends; None: all of them.
        second: parameters [P] and buffers [Q] of the second model after its training, if there is one.
        memory: what the step that returns this update remembers of the client until its next round.
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
        """What the client counts in the mean."""
        return self.samples if self.weight is None else self.weight

    def is_sound(self, buffers: Tensor) -> bool:
        """Whether the loss is finite, and parameters and changes of buffers are sound (`soundness`).

        Args:
            buffers: [Q], which the training started from.
        """
        return isfinite(self.loss) and sound(self.params) and sound(self.buffers - buffers)


@dataclass(frozen=True)
class ClientSum:
    """What K clients send back, added up.

    Attributes:
        change: [P] float32, ``sum_k weight_k (w_k - w)`` over the finite ones, in float64 and rounded once.
        samples: [K], how many samples each trained on.
        losses: [K], mean training loss over a client's steps.
        finite: [K], whether its loss is finite and its parameters are sound (`soundness`).
        weights: [K], what each counts in the mean.
        stats: of the layers of every finite client's change, in any order; None unless they were asked for.
        stats_weights: the weights of these clients, in that order.
        stats_clients: their places (from 0) among the K, in that order.
    """

    change: Tensor
    samples: list[int]
    losses: list[float]
    finite: list[bool]
    weights: list[float] = field(default_factory=list)
    stats: LayerStats | None = None
    stats_weights: list[float] = field(default_factory=list)
    stats_clients: list[int] = field(default_factory=list)


Finish = Callable[[int, ClientUpdate], ClientUpdate]
"""Makes what the client at a place (from 0) sends of what its training gave."""


class Trainer(Protocol):
    """An engine that trains one client at a time."""

    def supports(self, want: Want, clients_per_batch: int = 1) -> str | None:
        """Why the engine cannot do what a part wants; None: it can.

        Args:
            want: see `Want`.
            clients_per_batch: how many clients it trains in one call.
        """
        ...

    def train_one(self, start: ClientStart, round_index: int, client: int) -> ClientUpdate:
        """The local training of one client; with the round, all its draws depend on the client's number."""
        ...


class GroupTrainer(Trainer, Protocol):
    """An engine that trains several clients in one call.

    Attributes:
        shows_vectors: whether a client's vector can be looked at, and changed, before it is added up.
    """

    shows_vectors: bool

    def train_group(
        self,
        starts: Sequence[ClientStart],
        round_index: int,
        clients: Sequence[int],
        finish: Finish | None,
        largest: float,
        stats: bool,
    ) -> ClientSum:
        """The local training of K clients from the same parameters, added up.

        Args:
            starts: of the K clients.
            round_index: with a client's number, its draws depend on it.
            clients: their numbers.
            finish: called for every client's update before it is added, where the engine `shows_vectors`;
                None: clients send what training gives.
            largest: weight that no client exceeds unless `finish` says so.
            stats: whether `ClientSum.stats` are wanted, where the engine `shows_vectors`.
        """
        ...
