"""What clients keep for themselves: where it lies in a model's vectors, taken out of them and put in.

Personal blocks (FedPer, arXiv 1912.00818; FedRep, arXiv 2102.07078; FedBN, arXiv 2102.07623) are trained by
every client that takes part and never sent; the server's values of them stay those of the start (or of the
warm-up's end, until when everything is shared), from which a client begins that has none of its own. The
floating-point buffers of a module whose parameters are all personal are kept with them (BatchNorm's
statistics, as in FedBN); those of a module without parameters travel with everybody else's.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import as_tensor
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.selection.standing import standing_of
from fedtlu_fast.simulation.executors.lanes import Own, Vectors


class PersonalPart:
    """The p numbers of a model that each client keeps.

    Attributes:
        blocks: indices of the personal blocks, ascending.
        parameters: how many parameters they hold.
        buffers: how many numbers of the buffers go with them; p is both together.
    """

    def __init__(self, layout: ParameterLayout, blocks: tuple[int, ...]) -> None:
        """Finds them.

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

    def model_of(self, vectors: Vectors, own: Own | None) -> Vectors:
        """A client's own model.

        Args:
            vectors: the global parameters and buffers; not changed.
            own: what the client keeps; None before it has taken part.

        Returns:
            The vectors with `own` put in, new ones; those given where there is none.
        """
        if own is None:
            return vectors
        model = vectors[0].clone(), vectors[1].clone()
        places = self._places(model)
        parts = torch.split(as_tensor(own).to(vectors[0].device), [len(place) for place in places])
        for place, part in zip(places, parts, strict=True):
            place.copy_(part)
        return model

    def put_back_(self, vectors: Vectors, start: Vectors) -> None:
        """Makes these vectors' personal numbers those of `start`."""
        for place, value in zip(self._places(vectors), self._places(start), strict=True):
            place.copy_(value)

    def _places(self, vectors: Vectors) -> list[Tensor]:
        """Views of the personal numbers, parameters first."""
        pairs = zip(vectors, self._runs, strict=True)
        return [vector[run] for vector, runs in pairs for run in runs]


def personal_part(config: RunConfig, layout: ParameterLayout) -> PersonalPart | None:
    """What the settings have clients keep; None for nothing.

    Raises:
        InputError: see `standing`.
    """
    if not config.client_selection.keeps:
        return None
    return PersonalPart(layout, standing_of(config, layout).personal)


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
