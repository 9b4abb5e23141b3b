"""The settings of local training as one value: optimizer, steps, batch size, clipping, proximal term."""

from __future__ import annotations

from dataclasses import InitVar, is_dataclass, replace
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from fedtlu_fast.clients.optimizer import Optimizer, Sgd, TorchOptimizer
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import by_name, parameters, part


def _optimizer(given: Any) -> Any:
    found = by_name("optimizer", TorchOptimizer)(given)
    own = isinstance(found, Optimizer | type) or not callable(found)
    return found if own else TorchOptimizer(found)


@part
class Local:
    """How each client trains: ``Local("adamw", lr=1e-3, steps=10, batch_size=32)``.

    Attributes:
        optimizer: ``sgd``, ``adamw``, an `Optimizer`, or a function ``parameters -> torch.optim.Optimizer``;
            its state starts anew in every round.
        lr: learning rate of an optimizer that is given by name; None: the optimizer's default.
        steps: number of steps that a client takes in a round. Give either steps or epochs.
        epochs: number of passes over the client's samples in a round, for example 1 or 0.5; 1 if neither
            steps nor epochs is given.
        batch_size: number of samples in a step.
        clip_norm: upper limit of the L2 norm of a step's gradient; None: no limit.
        proximal_mu: FedProx's mu (arXiv 1812.06127), which adds mu/2 ||w - w0||^2 to the loss; 0 is FedAvg.

    Raises:
        InputError: both steps and epochs are given, or lr is given for an optimizer without that parameter.
    """

    optimizer: Annotated[Optimizer, BeforeValidator(_optimizer)] = Sgd()
    lr: InitVar[Annotated[float, Field(gt=0)] | None] = None
    steps: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 8
    clip_norm: Annotated[float, Field(gt=0)] | None = 1.0
    proximal_mu: Annotated[float, Field(ge=0)] = 0.0

    def __post_init__(self, lr: float | None) -> None:
        if self.steps is not None and self.epochs is not None:
            given = {"steps": self.steps, "epochs": self.epochs}
            raise InputError("steps", given, "one of the two", "Leave the other out.")
        if self.steps is None and self.epochs is None:
            object.__setattr__(self, "epochs", 1.0)
        if lr is None:
            return
        optimizer = self.optimizer
        if not is_dataclass(optimizer) or "lr" not in parameters(type(optimizer)):
            name = type(optimizer).__name__
            raise InputError("lr", lr, f"nothing beside {name}, which has no parameter of this name")
        object.__setattr__(self, "optimizer", replace(optimizer, lr=lr))
