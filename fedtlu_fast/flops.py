"""Measures what `costs` counts with: floating-point operations of forward and backward passes (ours).

Nothing is guessed from names. The task's loss is run under torch's own counter,
`torch.utils.flop_counter.FlopCounterMode`, with only the blocks in question trained. A multiplication and
an addition are two operations.

What the counter knows, and so what is counted: matrix products (``mm``, ``addmm``, ``bmm``, ``baddbmm``:
linear layers, ``einsum``, attention) and convolutions, forward and backward, exactly. Attention is run as
plain products (the CPU's fused kernel is unknown to the counter) and counts all T x T pairs, also those that
a causal mask hides and that a fused kernel may skip. What it does not know counts as 0: element-wise
operations, normalisations, softmax, the loss, the look-up of embeddings and the scatter that is their
gradient, matrix-vector products, fused recurrent layers (``nn.LSTM``), and the optimizer's step. Seconds are
another matter: ``benchmarks/partial_backward.py`` sets them beside.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from fedtlu_fast.costs import BlockCosts
from fedtlu_fast.data.population import Batch
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.plain_attention import PlainAttention
from fedtlu_fast.randomness import torch_seeded
from fedtlu_fast.tasks.task import Task


def measure_costs(task: Task, layout: ParameterLayout, batch: Batch) -> BlockCosts:
    """The costs of every block, by 2 B + 1 forward and backward passes; the model is left as it was.

    With F(S) the backward FLOPs when the blocks S are trained, ``weight_b = F(all) - F(all but b)``, both
    with gradients passed down to the model's input besides, so that no way becomes shorter without b; and
    ``reach_b = F({b}) - weight_b``. A block that the loss does not depend on has neither.

    Args:
        task: model and loss.
        layout: of the model.
        batch: samples of the shape that is trained on; one is enough, but for BatchNorm.

    Raises:
        InputError: an empty batch, or a model that computes other things when other blocks are trained, so
            that a block alone takes less than its share in the whole.
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
    """FLOPs of one sample's backward pass when only these blocks are trained, measured.

    Args:
        task: model and loss; left as it was.
        layout: of the model.
        batch: as for `measure_costs`.
        blocks: indices; may be empty.
    """
    with _training_as_it_was(task.model):
        return _flops(task, layout, batch, blocks)[1] / len(batch[0])


def _flops(
    task: Task, layout: ParameterLayout, batch: Batch, blocks: Collection[int], *, through: bool = False
) -> tuple[int, int]:
    """Of the forward and of the backward pass over a batch with only these blocks trained.

    `through`: gradients are passed down to the model's input besides.
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
        counter = stack.enter_context(FlopCounterMode(display=False))
        loss = task.loss(batch)
        forward = counter.get_total_flops()
        if loss.requires_grad:
            # Not backward(): the gradients that the model holds stay as they are.
            torch.autograd.grad(loss, leaves, allow_unused=True)
        return forward, counter.get_total_flops() - forward


@contextmanager
def _outputs_as_leaves(model: nn.Module, leaves: list[Tensor]) -> Iterator[None]:
    """Inside, gradients are passed down to every module's output, as if something below were trained."""

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
    """The same numbers, with a gradient; a copy of the leaf, which itself cannot be changed in place."""
    leaves.append(tensor.detach().requires_grad_())
    return leaves[-1].clone()


@contextmanager
def _training_as_it_was(model: nn.Module) -> Iterator[None]:
    """In training mode inside; modes, buffers and what is trained are restored."""
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
