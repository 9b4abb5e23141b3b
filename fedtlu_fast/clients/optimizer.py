"""The optimizers of local training, as values. To write your own, subclass `Optimizer` or give a function.

Ours are torch's own update rules on flat vectors, or on rows of clients. torch's functional forms are used
rather than its classes: these would be made anew for every client, and the first one made imports a compiler
for a second and a half.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Protocol

import torch
from pydantic import Field
from torch import Tensor
from torch.optim.adamw import adamw
from torch.optim.sgd import sgd

from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.parts import part

Rate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0)]


class Steps(Protocol):
    """The steps of one client's training, or of K clients that train side by side."""

    def step_(self, params: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        """Updates the parameters in place.

        Args:
            params: what `Optimizer.start` got; of rows, K may shrink from step to step: the first rows go
                on.
            grads: of the same shapes; not changed.
        """
        ...


class Optimizer(ABC):
    """How a client makes steps of gradients. Clients keep no state of it from round to round.

    Attributes:
        flat: whether it steps number by number, so that `start` may get pieces of flat vectors, or one
            matrix [K, P] of K clients. Otherwise it gets the model's own parameters, and only the engine
            that trains one client after another in torch can take it.
    """

    flat: ClassVar[bool] = True

    @property
    def vectors(self) -> int:
        """How many vectors [P] its state has; decides how many clients are trained side by side."""
        return 2

    @abstractmethod
    def start(self, params: Sequence[Tensor]) -> Steps:
        """A fresh state for one client's training.

        Args:
            params: what is going to be trained; see `flat`.
        """


@part
class Sgd(Optimizer):
    """SGD with momentum and weight decay, as in torch.

    Attributes:
        lr: learning rate.
        momentum: share of the last step, in [0, 1).
        weight_decay: is added to the gradient, times the parameters.
    """

    lr: Rate = 0.5
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Decay = 0.0

    @property
    def vectors(self) -> int:
        """The momentum, if there is one."""
        return int(self.momentum > 0)

    def start(self, params: Sequence[Tensor]) -> Steps:
        """See `Optimizer.start`."""
        return _SgdSteps(self)


@part
class AdamW(Optimizer):
    """AdamW, as in torch: betas 0.9 and 0.999, epsilon 1e-8.

    Attributes:
        lr: learning rate.
        weight_decay: the parameters shrink by lr times this in each step.
    """

    lr: Rate = 1e-3
    weight_decay: Decay = 0.0

    def start(self, params: Sequence[Tensor]) -> Steps:
        """See `Optimizer.start`."""
        return _AdamWSteps(self)


@part
class TorchOptimizer(Optimizer):
    """An optimizer that a function makes of the model's parameters.

    Attributes:
        function: ``parameters -> torch.optim.Optimizer``, such as ``lambda parameters:
            torch.optim.Adam(parameters, lr=1e-3)``. It is called for every client in every round, with a
            list of the parameters that the client trains; their gradients are there when it steps.
    """

    function: Callable[[list[Any]], Any]
    flat = False

    def start(self, params: Sequence[Tensor]) -> Steps:
        """See `Optimizer.start`.

        Raises:
            InputError: the function makes no optimizer of them.
        """
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        try:
            made = self.function(list(params))
        except Exception as error:
            raise InputError("optimizer", name, f"a function of parameters; {cause(error)}") from error
        if not isinstance(made, torch.optim.Optimizer):
            expected = f"a function that returns a torch.optim.Optimizer, not {type(made).__name__}"
            raise InputError("optimizer", name, expected)
        return _TorchSteps(made)


class _SgdSteps:
    def __init__(self, optimizer: Sgd) -> None:
        self._optimizer = optimizer
        self._momentum: list[Tensor] = []

    @torch.no_grad()
    def step_(self, params: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        params = list(params)
        buffers: list[Tensor | None] = list(_heads(self._momentum, params)) or [None] * len(params)
        sgd(
            params,
            list(grads),
            buffers,
            weight_decay=self._optimizer.weight_decay,
            momentum=self._optimizer.momentum,
            lr=self._optimizer.lr,
            dampening=0,
            nesterov=False,
            maximize=False,
        )
        if not self._momentum:
            self._momentum = [buffer for buffer in buffers if buffer is not None]


class _AdamWSteps:
    def __init__(self, optimizer: AdamW) -> None:
        self._optimizer = optimizer
        self._taken: list[Tensor] = []
        self._first: list[Tensor] = []
        self._second: list[Tensor] = []

    @torch.no_grad()
    def step_(self, params: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        params = list(params)
        if not self._first:
            self._first = [torch.zeros_like(piece) for piece in params]
            self._second = [torch.zeros_like(piece) for piece in params]
            self._taken = [torch.zeros(()) for _ in params]
        adamw(
            params,
            list(grads),
            _heads(self._first, params),
            _heads(self._second, params),
            [],
            self._taken,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self._optimizer.lr,
            weight_decay=self._optimizer.weight_decay,
            eps=1e-8,
            maximize=False,
        )


class _TorchSteps:
    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer

    def step_(self, params: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        self._optimizer.step()


def _heads(state: Sequence[Tensor], params: Sequence[Tensor]) -> list[Tensor]:
    """The state of the rows that still train."""
    return [own[: len(piece)] for own, piece in zip(state, params, strict=False)]
