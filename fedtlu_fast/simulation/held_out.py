"""The loss on the server's own samples after each step that a round could make."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property

from torch import Tensor

from fedtlu_fast.data.population import Pool
from fedtlu_fast.errors import InputError
from fedtlu_fast.scoring.held_out import HeldOut, check_blocks
from fedtlu_fast.selection import Selection, selection_of
from fedtlu_fast.simulation.apply import Applied
from fedtlu_fast.simulation.server import Server
from fedtlu_fast.simulation.state import ServerState

Step = Callable[[Selection], Applied]
"""Makes the server's step of a round with the selected blocks, on a copy of the parameters."""


def held_out_sample(
    server: Server,
    state: ServerState,
    change: Tensor,
    buffers: Tensor,
    step: Step,
    unsent: Collection[int],
) -> HeldOut | None:
    """Returns the losses that a round can ask for; None if nothing in this run asks for any.

    Args:
        server: of the run.
        state: before the round.
        change: [P], the aggregated change.
        buffers: [Q], the global buffers after the round.
        step: makes the server's step with some blocks, as the round makes it.
        unsent: the blocks that no client sent.
    """
    sample = server.evaluation.held_out
    if sample is None or not (server.evaluation.recorded or "held_out" in server.selector.asked()):
        return None
    both = state.buffers, buffers
    return HeldOutSample(server, sample, state.params, both, change, step, unsent)


class HeldOutSample:
    """Implements `scoring.held_out.HeldOut` for one round of a run.

    Every set of blocks is applied exactly as the round would apply it, to a copy of the parameters, and costs
    one forward pass over the sample. A loss is computed once.
    """

    def __init__(
        self,
        server: Server,
        sample: Pool,
        params: Tensor,
        buffers: tuple[Tensor, Tensor],
        change: Tensor,
        step: Step,
        unsent: Collection[int] = (),
    ) -> None:
        """Prepares the round's losses; nothing is computed yet.

        Args:
            server: of the run.
            sample: the server's samples.
            params: [P], the global parameters before the change.
            buffers: two of [Q], the global buffers before and after it.
            change: [P], the aggregated change.
            step: see `held_out_sample`.
            unsent: the blocks that no client sent.
        """
        self._server, self._sample = server, sample
        self._params, self._change, self._step = params, change, step
        self._old_buffers, self._buffers = buffers
        self._unsent = set(unsent)
        self._always = set(server.layout.unique) if server.unique == "always" else set()
        self._known: dict[frozenset[int], float] = {}
        self._gradient: Tensor | None = None

    def loss(self, blocks: Collection[int]) -> float:
        """See `HeldOut`.

        Raises:
            InputError: one of them is no block, or is in no group of like blocks.
        """
        check_blocks(blocks, self._server.layout)
        for block in set(blocks) & set(self._server.layout.unique):
            expected = "blocks that are in a group of like blocks"
            raise InputError("blocks", self._server.layout.blocks[block].name, expected)
        chosen = frozenset((set(blocks) | self._always) - self._unsent - self._unsound)
        if chosen not in self._known:
            self._known[chosen] = self._loss(sorted(chosen))
        return self._known[chosen]

    def gradient(self) -> Tensor:
        """See `HeldOut`."""
        if self._gradient is None:
            trainer, size = self._server.trainer, self._server.evaluation.batch_size
            found = trainer.test_gradient(self._params, self._old_buffers, self._sample, size)
            self._gradient = found.clone()  # the trainer works in the same memory
        return self._gradient.clone()  # a metric may write into it, and others read it too

    @cached_property
    def _unsound(self) -> set[int]:
        """The blocks whose change holds NaN or Inf; no round applies them."""
        layout = self._server.layout
        return {
            block
            for block in range(len(layout.blocks))
            for run in layout.runs([block])
            if not bool(self._change[run].isfinite().all())
        }

    def _loss(self, blocks: list[int]) -> float:
        server = self._server
        applied = self._step(selection_of(server.layout, blocks))
        server.trainer.load_(applied.params, self._buffers)
        return float(server.trainer.task.evaluate(self._sample, server.evaluation.batch_size).loss)
