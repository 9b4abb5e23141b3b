"""What people write by hand for Eq. 1: layers in, what each takes for (mean/std)^2 out, [L]."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

Rival = Callable[[Sequence[Tensor]], Tensor]


def _excess(score: Tensor, layers: Sequence[Tensor]) -> Tensor:
    """Score (ddof 1) -> excess, in float64: what is lost was lost before."""
    count = torch.tensor([layer.numel() for layer in layers], dtype=torch.float64, device=score.device)
    return score.double().square() * count / (count - 1).clamp(min=1) - 1


def float32_loop(layers: Sequence[Tensor]) -> Tensor:
    """``norm() / (sqrt(n) * std())`` tensor by tensor, in the layers' own dtype."""
    scores = [layer.norm() / (layer.numel() ** 0.5 * layer.std()) for layer in layers]
    return _excess(torch.stack(scores), layers)


def float64_loop(layers: Sequence[Tensor]) -> Tensor:
    """The same after ``double()``."""
    return float32_loop([layer.double() for layer in layers])


def std_mean_loop(layers: Sequence[Tensor]) -> Tensor:
    """``torch.std_mean`` tensor by tensor: one pass instead of two."""
    pairs = [torch.std_mean(layer, correction=0) for layer in layers]
    return torch.stack([(mean.double() / std.double()).square() for std, mean in pairs])


def foreach_norm(layers: Sequence[Tensor]) -> Tensor:
    """``torch._foreach_norm``, and ``std`` tensor by tensor."""
    roots = torch.tensor([layer.numel() ** 0.5 for layer in layers], device=layers[0].device)
    norms = torch.stack(torch._foreach_norm(list(layers)))
    return _excess(norms / (roots * torch.stack([layer.std() for layer in layers])), layers)


def numpy_loop(layers: Sequence[Tensor]) -> Tensor:
    """NumPy, layer by layer; bfloat16 is widened, since NumPy has none."""
    arrays = [(layer.float() if layer.dtype == torch.bfloat16 else layer).numpy().ravel() for layer in layers]
    scores = [np.linalg.norm(a) / (np.sqrt(a.size) * a.std(ddof=1)) for a in arrays]
    return _excess(torch.tensor(np.array(scores)), layers)


RIVALS: dict[str, Rival] = {
    "torch loop": float32_loop,
    "torch loop, float64": float64_loop,
    "torch std_mean loop": std_mean_loop,
    "torch foreach_norm + std": foreach_norm,
    "numpy loop": numpy_loop,
}
