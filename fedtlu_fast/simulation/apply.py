"""The end of a round: the chosen blocks of the global model take the server's step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from fedtlu_fast.aggregation import OptimizerState, ServerOptimizer
from fedtlu_fast.aggregation.returned import check_step
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.ops.dispatch import masked_apply_
from fedtlu_fast.own_errors import named_errors
from fedtlu_fast.selection import Selection, selection_of
from fedtlu_fast.soundness import LARGEST, sound
from fedtlu_fast.unchanged import unchanged


@dataclass(frozen=True)
class Applied:
    """The global model after a round.

    Attributes:
        params: [P], the new parameters.
        optimizer: the server optimizer's next state.
        selection: the blocks that changed.
        overflowed: indices of chosen blocks that kept their values, since the new ones would not have been
            sound (`soundness`).
    """

    params: Tensor
    optimizer: OptimizerState
    selection: Selection
    overflowed: tuple[int, ...] = ()


def left_out(layout: ParameterLayout, nonfinite: Tensor, applied: Applied) -> tuple[str, ...]:
    """Names of the blocks that could not be applied.

    Args:
        layout: of the model.
        nonfinite: [L], number of NaN or Inf in each layer's change.
        applied: says which others would have gone beyond what is sound.
    """
    wrong = (nonfinite > 0).tolist()
    return tuple(
        block.name
        for index, block in enumerate(layout.blocks)
        if index in applied.overflowed or any(wrong[layer] for layer in block.layers)
    )


def apply(
    params: Tensor,
    change: Tensor,
    selection: Selection,
    layout: ParameterLayout,
    optimizer: ServerOptimizer,
    state: OptimizerState,
    server_lr: float,
    backend: str,
) -> Applied:
    """Makes the step of `apply_` on a copy of the parameters."""
    return apply_(params.clone(), change, selection, layout, optimizer, state, server_lr, backend)


def apply_(
    params: Tensor,
    change: Tensor,
    selection: Selection,
    layout: ParameterLayout,
    optimizer: ServerOptimizer,
    state: OptimizerState,
    server_lr: float,
    backend: str,
) -> Applied:
    """Makes the server's step of a change in the selected blocks; copies no more than one block at a time.

    A block whose parameters would not be sound keeps its old ones.

    Args:
        params: [P], the global parameters, which are changed.
        change: [P], the aggregated change, finite in the selected blocks; not changed.
        selection: the blocks to update.
        layout: of the model.
        optimizer: makes the step.
        state: of the optimizer; not changed.
        server_lr: factor on the step.
        backend: who runs the kernels.
    """
    overflowed: tuple[int, ...] = ()
    while True:
        step, after = _step(change, selection, layout, optimizer, state)
        # Norms that are small together prove it for all blocks at once.
        bound = vector_norm(params) + abs(server_lr) * vector_norm(step)
        if bound < LARGEST / 2:
            break
        wrong = tuple(
            block
            for block in selection.blocks
            for run in layout.runs([block])
            if not _stays_sound(params[run], step[run], server_lr, backend)
        )
        if not wrong:
            break
        overflowed += tuple(dict.fromkeys(wrong))
        selection = selection_of(layout, [block for block in selection.blocks if block not in wrong])
    masked_apply_(params, step, layout.offsets, selection.mask, server_lr, backend)
    return Applied(params, after, selection, overflowed)


def _stays_sound(params: Tensor, step: Tensor, server_lr: float, backend: str) -> bool:
    """Tells whether parameters [N] are sound after a step [N]; they are not changed."""
    moved = params.clone()
    masked_apply_(moved, step, torch.tensor([0, len(moved)]), torch.tensor([True]), server_lr, backend)
    return sound(moved)


def _step(
    change: Tensor,
    selection: Selection,
    layout: ParameterLayout,
    optimizer: ServerOptimizer,
    state: OptimizerState,
) -> tuple[Tensor, OptimizerState]:
    """Returns the server's step of a change, and the optimizer's next state."""
    mask, field = selection.mask, "aggregation.server_optimizer"
    held = {f"state[{name!r}]": vector for name, vector in state.items()}
    given = {"change": change, "offsets": layout.offsets, "mask": mask, **held}
    with named_errors(field, optimizer), unchanged(field, optimizer, "step", given):
        found = optimizer.step(change, state, layout.offsets, mask)
    return check_step(optimizer, found, change)
