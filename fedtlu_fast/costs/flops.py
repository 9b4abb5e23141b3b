"""Measures the floating-point operations of forward and backward passes for `costs` (the method is ours).

Nothing is guessed from names. The task's loss is run under a counter with torch's own formulas (`counter`),
with only the blocks in question trained. A multiplication and an addition are two operations.

The counter knows, and so counts, matrix products (``mm``, ``addmm``, ``bmm``, ``baddbmm``: linear layers,
``einsum``, attention) and convolutions, forward and backward, exactly. Attention is run as plain products
(the counter does not know the CPU's fused kernel) and counts all T x T pairs, also pairs that a causal mask
hides and that a fused kernel may skip. Everything else counts as 0: element-wise operations, normalisations,
softmax, the loss, the look-up of embeddings and the scatter of their gradient, matrix-vector products, fused
recurrent layers (``nn.LSTM``), and the optimizer's step. ``benchmarks/partial_backward.py`` compares the
counts with seconds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from fedtlu_fast.costs.blocks import BlockCosts
from fedtlu_fast.costs.counter import FlopCounter
from fedtlu_fast.data.population import Batch
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.models.plain_attention import PlainAttention
from fedtlu_fast.randomness import torch_seeded
from fedtlu_fast.tasks.task import Task


def measure_costs(task: Task, layout: ParameterLayout, batch: Batch) -> BlockCosts:
    """Measures the costs of every block by 2 B + 1 forward and backward passes; the model is left unchanged.

    F(S) are the backward FLOPs if the blocks S are trained. Then ``weight_b = F(all) - F(all except b)``,
    measured with gradients that also pass down to the model's input, so that leaving b out shortens no path;
    and ``reach_b = F({b}) - weight_b``. Both are 0 for a block on which the loss does not depend.

    Args:
        task: the model and its loss.
        layout: the model's layout.
        batch: samples of the shape of the training data; one sample is enough, except for BatchNorm.

    Raises:
        InputError: the batch is empty; or the model's operations depend on which blocks are trained, so that
            a block alone takes fewer FLOPs than its part of the whole.
    """
    count = len(batch[0])
    if not count:
        raise InputError("batch", "no samples", "one or more")
    every = range(len(layout.blocks))
    with _training_as_it_was(task.model):
        forward, whole = _flops(task, layout, batch, every, through=True)
        without = [
            _flops(task, layout, batch, [other for other in every if other != block], through=True)[1]
            for block in every
        ]
        alone = [_flops(task, layout, batch, [block])[1] for block in every]
    weight = [whole - rest for rest in without]
    for block, own, single in zip(layout.blocks, weight, alone, strict=True):
        if not 0 <= own <= single:
            raise InputError(
                f"model, block {block.name}",
                f"{single} FLOPs of its backward pass alone, {own} of them beside the others",
                "a model that computes the same whatever is trained",
            )
    return BlockCosts(
        names=tuple(block.name for block in layout.blocks),
        parameters=np.array(layout.block_sizes(), np.int64),
        buffers=sum(slot.numel for slot in layout.buffers),
        forward=forward / count,
        weight=np.array(weight, np.float64) / count,
        reach=(np.array(alone, np.float64) - np.array(weight, np.float64)) / count,
    )


def backward_flops(task: Task, layout: ParameterLayout, batch: Batch, blocks: Collection[int]) -> float:
    """Measures the FLOPs of one sample's backward pass if only these blocks are trained.

    Args:
        task: the model and its loss; left unchanged.
        layout: the model's layout.
        batch: see `measure_costs`.
        blocks: indices of the trained blocks; may be empty.
    """
    with _training_as_it_was(task.model):
        return _flops(task, layout, batch, blocks)[1] / len(batch[0])


def _flops(
    task: Task, layout: ParameterLayout, batch: Batch, blocks: Collection[int], *, through: bool = False
) -> tuple[int, int]:
    """Measures the FLOPs of the forward and the backward pass over a batch if only these blocks are trained.

    With `through`, gradients also pass down to the model's input.
    """
    trained = {layout.names[layer] for block in blocks for layer in layout.blocks[block].layers}
    leaves: list[Tensor] = []
    for name, param in task.model.named_parameters():
        param.requires_grad_(name in trained)
        if name in trained:
            leaves.append(param)
    with ExitStack() as stack:
        stack.enter_context(torch_seeded(0, "costs"))
        if through:
            batch = tuple(_as_leaf(part, leaves) if part.is_floating_point() else part for part in batch)
            stack.enter_context(_outputs_as_leaves(task.model, leaves))
        stack.enter_context(PlainAttention())
        counter = stack.enter_context(FlopCounter())
        loss = task.loss(batch)
        forward = counter.total
        if loss.requires_grad:
            # Not backward(), so that the gradients that the model holds stay unchanged.
            torch.autograd.grad(loss, leaves, allow_unused=True)
        return forward, counter.total - forward


@contextmanager
def _outputs_as_leaves(model: nn.Module, leaves: list[Tensor]) -> Iterator[None]:
    """Passes gradients down to every module's output inside the context, as if a layer below were trained."""

    def hook(_module: nn.Module, _inputs: object, output: object) -> Tensor | None:
        if isinstance(output, Tensor) and output.is_floating_point() and not output.requires_grad:
            return _as_leaf(output, leaves)
        return None

    handles = [module.register_forward_hook(hook) for module in model.modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _as_leaf(tensor: Tensor, leaves: list[Tensor]) -> Tensor:
    """Returns the tensor with a gradient: a copy of a new leaf, since leaves cannot be changed in place."""
    leaves.append(tensor.detach().requires_grad_())
    return leaves[-1].clone()


@contextmanager
def _training_as_it_was(model: nn.Module) -> Iterator[None]:
    """Puts the model in training mode inside the context; restores modes, buffers and `requires_grad`."""
    modes = [(module, module.training) for module in model.modules()]
    trained = [(param, param.requires_grad) for param in model.parameters()]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    model.train()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for param, requires_grad in trained:
            param.requires_grad_(requires_grad)
        for buffer, before in buffers:
            with torch.no_grad():
                buffer.copy_(before)
