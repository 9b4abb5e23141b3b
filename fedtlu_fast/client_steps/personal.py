"""Blocks that clients keep for themselves.

Personal blocks (FedPer, arXiv 1912.00818; FedRep, arXiv 2102.07078; FedBN, arXiv 2102.07623) are trained by
every client that takes part and never sent; the server's values of them stay those of the start (or of the
warm-up's end, until when everything is shared), from which a client begins that has none of its own. The
floating-point buffers of a module whose parameters are all personal are kept with them (BatchNorm's
statistics, as in FedBN); those of a module without parameters travel with everybody else's.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.client_steps.step import ClientContext, ClientStep, Vectors
from fedtlu_fast.clients.trainer import Blocks, ClientStart, ClientUpdate
from fedtlu_fast.data.population import as_tensor
from fedtlu_fast.layout import ParameterLayout

Own = NDArray[np.float32]
"""[p]: the numbers that one client keeps for itself."""
PART, VALUES = "Personal", "values"
"""Under which names `Personal` remembers each client's own numbers."""


@dataclass(frozen=True)
class Personal(ClientStep):
    """Each client trains the personal blocks, keeps its values of them, and never sends them.

    A proximal term holds a client to where it starts, its own values too. While clients have no orders
    (in the warm-up) everything is shared.

    Attributes:
        part: where the personal numbers lie.
        alternate: FedRep: the personal blocks are trained first, in a pass of their own, and then the rest.
    """

    part: PersonalPart
    alternate: bool = False
    changes: ClassVar[frozenset[str]] = frozenset({"blocks"})

    @override
    def own_model(self, client: ClientContext, vectors: Vectors) -> Vectors:
        own = client.memory.get(VALUES)
        return vectors if own is None else self.part.model_of(vectors, np.asarray(own))

    @override
    def before(self, client: ClientContext, start: ClientStart) -> ClientStart:
        if client.order is None or not self.alternate:
            return start
        first = self.part.blocks
        blocks = client.order.trained if start.blocks is None else start.blocks
        return replace(start, first=first, blocks=tuple(block for block in blocks if block not in first))

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        if client.order is None:
            return update
        if client.start is None:
            raise RuntimeError("a client's update without what its training started from")
        vectors = update.params, update.buffers
        sound = update.is_sound(client.start.buffers)
        memory = {VALUES: self.part.taken(vectors)} if sound else {}
        params, buffers = self.part.put_back(vectors, (client.params, client.buffers))
        return replace(update, params=params, buffers=buffers, memory=memory)


class PersonalPart:
    """The p numbers of a model that each client keeps.

    Attributes:
        blocks: indices of the personal blocks, ascending.
        parameters: how many parameters they hold.
        buffers: how many numbers of the buffers go with them; p is both together.
    """

    def __init__(self, layout: ParameterLayout, blocks: Blocks) -> None:
        """Finds where they lie.

        Args:
            layout: of the model.
            blocks: see the class.
        """
        self.blocks = blocks
        self._runs = layout.runs(blocks), _buffer_runs(layout, blocks)
        self.parameters, self.buffers = (sum(run.stop - run.start for run in runs) for runs in self._runs)

    def taken(self, vectors: Vectors) -> Own:
        """The p numbers in these vectors, copied."""
        return torch.cat(self._places(vectors)).cpu().numpy()

    def model_of(self, vectors: Vectors, own: Own) -> Vectors:
        """A client's own model.

        Args:
            vectors: the global parameters and buffers; not changed.
            own: what the client keeps.

        Returns:
            The vectors with `own` put in, new ones.
        """
        model = vectors[0].clone(), vectors[1].clone()
        places = self._places(model)
        parts = torch.split(as_tensor(own).to(vectors[0].device), [len(place) for place in places])
        for place, part in zip(places, parts, strict=True):
            place.copy_(part)
        return model

    def put_back(self, vectors: Vectors, start: Vectors) -> Vectors:
        """These vectors with the personal numbers of `start`, new ones."""
        shared = vectors[0].clone(), vectors[1].clone()
        for place, value in zip(self._places(shared), self._places(start), strict=True):
            place.copy_(value)
        return shared

    def _places(self, vectors: Vectors) -> list[Tensor]:
        """Views of the personal numbers, parameters first."""
        pairs = zip(vectors, self._runs, strict=True)
        return [vector[run] for vector, runs in pairs for run in runs]


def personal_step(steps: Iterable[ClientStep]) -> Personal | None:
    """The step by which clients keep blocks; None where they keep nothing."""
    return next((step for step in steps if isinstance(step, Personal)), None)


def _buffer_runs(layout: ParameterLayout, blocks: tuple[int, ...]) -> list[slice]:
    """Where the buffers lie of modules all of whose parameters are in these blocks."""
    kept, shared = set[str](), set[str]()
    for name, personal in zip(layout.names, layout.layer_mask(blocks).tolist(), strict=True):
        (kept if personal else shared).add(_module(name))
    own = kept - shared
    return [
        slice(slot.offset, slot.offset + slot.numel) for slot in layout.buffers if _module(slot.name) in own
    ]


def _module(name: str) -> str:
    return name.rpartition(".")[0]
