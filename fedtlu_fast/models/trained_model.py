"""The model that a run leaves: a module with the final weights and buffers."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from fedtlu_fast.layout import ParameterLayout


@torch.no_grad()
def trained_model(model: nn.Module, layout: ParameterLayout, params: Tensor, buffers: Tensor) -> nn.Module:
    """A copy of a model with these values, on the CPU and in evaluation mode; the model stays as it is.

    Args:
        model: of any values; its frozen parameters and other buffers are copied as they are.
        layout: of the model.
        params: [P] float32, its trainable parameters, on any device.
        buffers: [Q] float32, its floating-point buffers.
    """
    found = copy.deepcopy(model).cpu().eval()
    held = dict(found.named_parameters())
    for name, view in layout.views(params.cpu()).items():
        # Training of some blocks alone switches the gradients of the others off.
        held[name].copy_(view).requires_grad_()
        held[name].grad = None
    layout.load_buffers_(found, buffers.cpu())
    return found
