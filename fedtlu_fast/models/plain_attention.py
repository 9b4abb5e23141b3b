"""Computes attention by plain products, which `torch.func.vmap` and the counting of FLOPs need."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode


class PlainAttention(TorchFunctionMode):
    """Computes attention inside the context by plain products, as `sdpa_kernel(SDPBackend.MATH)` does.

    That function switches the kernels of all threads; this mode affects the current thread only.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return _plain_attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _plain_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    **options: Any,
) -> torch.Tensor:
    device = query.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(dtype)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        hidden = torch.zeros_like(attn_mask, dtype=query.dtype)
        attn_mask = hidden.masked_fill(~attn_mask, float("-inf"))
    with torch.autocast(device, enabled=False):
        found = torch._scaled_dot_product_attention_math(
            query, key, value, attn_mask, dropout_p, is_causal, **options
        )
    return found[0]
