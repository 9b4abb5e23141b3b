"""The optimizers of local training, as values. To write your own, subclass `Optimizer` or give a function.

Our optimizers apply torch's own update rules to flat vectors, or to a matrix with a row for each client. They
call torch's functional forms and not its classes, because an object would have to be made for every client,
and making the first one imports a compiler, which takes a second and a half.
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
from typing_extensions import override

from fedtlu_fast.errors import InputError, cause
from fedtlu_fast.parts import part

Rate = Annotated[float, Field(gt=0)]
Decay = Annotated[float, Field(ge=0)]


class Steps(Protocol):
    """The steps of one client's training, or of K clients that train side by side."""

    def step_(self, params: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        """Updates the parameters in place.

        Args:
            params: the tensors that `Optimizer.start` received. A matrix [K, P] may have fewer rows than in
                the step before: the first clients go on, and the others have finished.
            grads: the gradients, of the same shapes; not changed.
        """
        ...


class Optimizer(ABC):
    """Turns gradients into steps. Its state starts anew for every client in every round.

    Attributes:
        flat: whether the rule treats every number separately. Then `start` may receive pieces of flat
            vectors, or one matrix [K, P] of K clients. Otherwise it receives the model's own parameters, and
            only the engine that trains one client after another in torch can use it.
    """

    flat: ClassVar[bool] = True

    @property
    def vectors(self) -> int:
        """Number of vectors [P] in one client's state, from which a run estimates the memory it needs."""
        return 2

    @abstractmethod
    def start(self, params: Sequence[Tensor]) -> Steps:
        """Returns a fresh state for the training of one client, or of K clients side by side.

        Args:
            params: the parameters that are going to be trained; see `flat`.
        """


@part
class Sgd(Optimizer):
    """SGD with momentum and weight decay, as in torch.

    Attributes:
        lr: learning rate, above 0.
        momentum: factor of the momentum buffer, in [0, 1).
        weight_decay: factor of the parameters in the sum that is added to the gradient, 0 or more.
    """

    lr: Rate = 0.5
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    weight_decay: Decay = 0.0

    @property
    def vectors(self) -> int:
        """1 for the momentum buffer, or 0 without momentum."""
        return int(self.momentum > 0)

    @override
    def start(self, params: Sequence[Tensor]) -> Steps:
        return _SgdSteps(self)


@part
class AdamW(Optimizer):
    """AdamW, as in torch: betas 0.9 and 0.999, epsilon 1e-8.

    Attributes:
        lr: learning rate, above 0.
        weight_decay: each step shrinks the parameters by the share lr times weight_decay.
    """

    lr: Rate = 1e-3
    weight_decay: Decay = 0.0

    @override
    def start(self, params: Sequence[Tensor]) -> Steps:
        return _AdamWSteps(self)


@part
class TorchOptimizer(Optimizer):
    """An optimizer that the user's function makes from the model's parameters.

    Attributes:
        function: ``parameters -> torch.optim.Optimizer``, such as ``lambda parameters:
            torch.optim.Adam(parameters, lr=1e-3)``. It is called for every client in every round, with a
            list of the parameters that the client trains; their gradients are set before each step. The
            optimizer has to hold all of them and no others (`covered`).
    """

    function: Callable[[list[Any]], Any]
    flat = False

    def start(self, params: Sequence[Tensor]) -> Steps:
        """See `Optimizer.start`.

        Raises:
            InputError: the function raises, or returns no torch.optim.Optimizer.
        """
        name = getattr(self.function, "__qualname__", type(self.function).__name__)
        try:
            made = self.function(list(params))
        except Exception as error:
            raise InputError("optimizer", name, f"a function of parameters; {cause(error)}") from error
        if not isinstance(made, torch.optim.Optimizer):
            expected = f"a function that returns a torch.optim.Optimizer, not {type(made).__name__}"
            raise InputError("optimizer", name, expected)
        return TorchSteps(made, name)


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


class TorchSteps:
    """The steps of a torch optimizer, which holds the parameters itself.

    Attributes:
        optimizer: the torch optimizer.
        name: the name of the function that made it.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, name: str) -> None:
        self.optimizer, self.name = optimizer, name

    def step_(self, params: Sequence[Tensor], grads: Sequence[Tensor]) -> None:
        """See `Steps`."""
        self.optimizer.step()


def _heads(state: Sequence[Tensor], params: Sequence[Tensor]) -> list[Tensor]:
    """Returns the state of the first rows, whose clients still train."""
    return [own[: len(piece)] for own, piece in zip(state, params, strict=False)]
