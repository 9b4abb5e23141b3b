"""The mean cross-entropy over many classes, whose backward pass makes no second matrix.

`torch.nn.functional.cross_entropy` keeps the logarithms of the probabilities, [N, V], and its backward pass
makes two more matrices of that size: zeros with one number a row, and the gradient. Here the gradient takes
the place of the logarithms, some rows at a time. The operations are torch's own, so the bits are those of
torch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

IGNORED = -100
"""The target that torch ignores."""
NUMBERS = 2**19
"""Numbers of the matrix that are worked on together, so that they stay in a core's cache."""
_MEAN = 1


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean negative log-likelihood in nats, as `torch.nn.functional.cross_entropy` does.

    Gradients cannot be differentiated again. On other devices, for other types, and while a function is
    transformed (`torch.func`) or compiled, torch's own function is called.

    Args:
        logits: [N, V].
        targets: [N] int64, in [0, V), or -100 for what is ignored.
    """
    plain = logits.device.type == "cpu" and logits.dtype == torch.float32 and logits.requires_grad
    transformed = torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None
    if not plain or transformed or not len(logits):
        return F.cross_entropy(logits, targets)
    found: Tensor = _CrossEntropy.apply(logits, targets)  # type: ignore[no-untyped-call]
    return found


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        logs = torch.log_softmax(logits, 1)
        mean, total = torch.ops.aten.nll_loss_forward(logs, targets, None, _MEAN, IGNORED)
        ctx.save_for_backward(logs, targets, total)
        found: Tensor = mean
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        logs, targets, total = ctx.saved_tensors
        count, classes = logs.shape
        counted = targets != IGNORED
        places = torch.where(counted, targets, 0).unsqueeze(1)
        values = torch.where(counted, -(grad / total), 0.0).unsqueeze(1)
        step = max(1, NUMBERS // classes)
        above = torch.zeros(min(step, count), classes)
        for first in range(0, count, step):
            rows = slice(first, first + step)
            own = logs[rows]
            of_rows = above[: len(own)]
            of_rows.scatter_(1, places[rows], values[rows])
            # Also into `logs`: a second backward pass finds them changed and raises.
            torch.ops.aten._log_softmax_backward_data.out(of_rows, own, 1, logs.dtype, out=own)
            of_rows.scatter_(1, places[rows], 0.0)
        return logs, None
