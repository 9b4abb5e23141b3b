"""Personal blocks, which every client trains and keeps for itself.

Every client that takes part trains the personal blocks (FedPer, arXiv 1912.00818; FedRep, arXiv 2102.07078;
FedBN, arXiv 2102.07623) and never sends them. The server keeps their values from the start of the run, or
from the end of the warm-up, during which everything is shared; a client without values of its own begins with
these. The floating-point buffers of a module whose parameters are all personal are personal as well
(BatchNorm's statistics, as in FedBN); buffers of a module without parameters are sent.
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
from fedtlu_fast.part_memory import part_of_step

Own = NDArray[np.float32]
"""[p] float32, the personal numbers of one client."""
PART, VALUES = part_of_step("Personal"), "values"
"""The names under which `Personal` remembers each client's personal numbers."""


@dataclass(frozen=True)
class Personal(ClientStep):
    """Each client trains the personal blocks, keeps its values of them, and never sends them.

    A proximal term holds a client to its start, which includes its personal values. While clients have no
    orders (in the warm-up), everything is shared.

    Attributes:
        part: the places of the personal numbers.
        alternate: whether the personal blocks are trained first, in a separate pass, and then the rest
            (FedRep).
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
            raise RuntimeError("the context of a client's update lacks the start of its training")
        vectors = update.params, update.buffers
        sound = update.is_sound(client.start.buffers)
        memory = {VALUES: self.part.taken(vectors)} if sound else {}
        params, buffers = self.part.put_back(vectors, (client.params, client.buffers))
        return replace(update, params=params, buffers=buffers, memory=memory)


class PersonalPart:
    """The places of the p personal numbers in a model's vectors.

    Attributes:
        blocks: indices of the personal blocks, ascending.
        parameters: number of parameters in these blocks.
        buffers: number of numbers in their buffers; p is the sum of both.
    """

    def __init__(self, layout: ParameterLayout, blocks: Blocks) -> None:
        """Finds the places of the personal numbers.

        Args:
            layout: the model's layout.
            blocks: indices of the personal blocks, ascending.
        """
        self.blocks = blocks
        self._runs = layout.runs(blocks), _buffer_runs(layout, blocks)
        self.parameters, self.buffers = (sum(run.stop - run.start for run in runs) for runs in self._runs)

    def taken(self, vectors: Vectors) -> Own:
        """Returns [p] float32, a copy of the personal numbers in these vectors."""
        return torch.cat(self._places(vectors)).cpu().numpy()

    def model_of(self, vectors: Vectors, own: Own) -> Vectors:
        """Returns a client's own model.

        Args:
            vectors: the global parameters and buffers; not changed.
            own: [p], the client's personal numbers.

        Returns:
            Copies of the vectors, with `own` in place of their personal numbers.
        """
        model = vectors[0].clone(), vectors[1].clone()
        places = self._places(model)
        parts = torch.split(as_tensor(own).to(vectors[0].device), [len(place) for place in places])
        for place, part in zip(places, parts, strict=True):
            place.copy_(part)
        return model

    def put_back(self, vectors: Vectors, start: Vectors) -> Vectors:
        """Returns copies of the vectors, with the personal numbers of `start` in place of their own."""
        shared = vectors[0].clone(), vectors[1].clone()
        for place, value in zip(self._places(shared), self._places(start), strict=True):
            place.copy_(value)
        return shared

    def _places(self, vectors: Vectors) -> list[Tensor]:
        """Returns views of the personal numbers in the vectors, parameters first."""
        pairs = zip(vectors, self._runs, strict=True)
        return [vector[run] for vector, runs in pairs for run in runs]


def personal_step(steps: Iterable[ClientStep]) -> Personal | None:
    """Returns the step by which clients keep personal blocks, or None if there is none."""
    return next((step for step in steps if isinstance(step, Personal)), None)


def _buffer_runs(layout: ParameterLayout, blocks: tuple[int, ...]) -> list[slice]:
    """Returns the slices of the buffers of modules whose parameters are all in these blocks."""
    kept, shared = set[str](), set[str]()
    for name, personal in zip(layout.names, layout.layer_mask(blocks).tolist(), strict=True):
        (kept if personal else shared).add(_module(name))
    own = kept - shared
    return [
        slice(slot.offset, slot.offset + slot.numel) for slot in layout.buffers if _module(slot.name) in own
    ]


def _module(name: str) -> str:
    return name.rpartition(".")[0]
