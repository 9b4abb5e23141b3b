"""The gradients of a model's parameters, and their way into a flat vector.

torch adds a gradient to one that is there already, which costs a pass to clear it before and one to read
it. So there is none when a backward pass begins: torch then keeps the tensors that it has made, and they are
copied into the flat vector, or an optimizer's step reads them where they are.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fedtlu_fast.layout import ParameterLayout

LARGE = 2**13
"""Mean size of a tensor from which on steps on all tensors are quicker than a copy and one step."""


class Leaves:
    """A model's trainable parameters, which are views of a flat vector, and their gradients.

    Attributes:
        params: the parameters, in the order of the layout.
        large: whether a step is quicker on each parameter than on the flat vector.
    """

    def __init__(self, model: nn.Module, layout: ParameterLayout, params: Tensor, grads: Tensor) -> None:
        """Gives every parameter a gradient of 0, which is a view of `grads`.

        Args:
            model: its trainable parameters are views of `params`.
            layout: the model's layout.
            params: [P] float32.
            grads: [P] float32, zeros.
        """
        named, self.large = dict(model.named_parameters()), layout.size >= LARGE * len(layout.layers)
        self.params = [named[layer.name] for layer in layout.layers]
        views = layout.views(grads)
        self._views = [views[layer.name] for layer in layout.layers]
        places = [slice(layer.offset, layer.offset + layer.numel) for layer in layout.layers]
        self._pieces = [params[place] for place in places]
        self._zeros = [grads[place] for place in places]
        self.attach_()

    def trained(self) -> list[nn.Parameter]:
        """Returns the parameters that are trained now, in the order of the layout."""
        return [param for param in self.params if param.requires_grad]

    def pieces(self) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the pieces [n] of the flat vectors of parameters and gradients that are trained now."""
        chosen = [at for at, param in enumerate(self.params) if param.requires_grad]
        return [self._pieces[at] for at in chosen], [self._zeros[at] for at in chosen]

    def attach_(self) -> None:
        """Makes the parameters' gradients views of the flat vector, whose values stay."""
        for param, view in zip(self.params, self._views, strict=True):
            param.grad = view

    def clear_(self) -> None:
        """Takes the gradients away, so that the next backward pass adds to nothing."""
        for param in self.params:
            param.grad = None

    def found(self) -> list[Tensor]:
        """Returns the gradients [n] of a backward pass, of the parameters that are trained now.

        They are 0 where the loss does not depend on the parameter.
        """
        return [
            zero.zero_() if param.grad is None else param.grad.reshape(-1)
            for param, zero in zip(self.params, self._zeros, strict=True)
            if param.requires_grad
        ]

    @torch.no_grad()
    def gather_(self) -> None:
        """Writes the gradients of a backward pass into the flat vector, and 0 where there is none."""
        found, views = [], []
        for param, view in zip(self.params, self._views, strict=True):
            if param.grad is None:
                view.zero_()
            else:
                found.append(param.grad)
                views.append(view)
        if found:
            torch._foreach_copy_(views, found)
        self.attach_()
