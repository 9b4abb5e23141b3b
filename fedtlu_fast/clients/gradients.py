"""Changes of a client's gradients before a step: the proximal term and clipping."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


def add_proximal_(grads: Tensor, params: Tensor, start: Tensor, mu: float) -> None:
    """FedProx (arXiv 1812.06127): adds mu (w - w0), the gradient of mu/2 ||w - w0||^2.

    Args:
        grads: [P], changed in place.
        params: [P], the current parameters w.
        start: [P], the global parameters w0.
        mu: strength of the term; 0 is FedAvg.
    """
    if mu:
        grads.add_(params, alpha=mu).sub_(start, alpha=mu)


def clip_(flat: nn.Parameter, limit: float | None) -> None:
    """Scales the gradient of `flat` [P] down to an L2 norm of `limit`; a smaller gradient keeps its bits."""
    if limit is not None and flat.grad is not None:
        clip_grads_with_norm_([flat], limit, get_total_norm([flat.grad]))
