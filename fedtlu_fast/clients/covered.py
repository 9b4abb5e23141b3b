"""Checks that a user's optimizer trains the client's parameters: all of them, and no others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import Parameter, signature

import torch
from torch import Tensor, nn

from fedtlu_fast.clients.optimizer import Optimizer, Steps, TorchSteps
from fedtlu_fast.errors import InputError, listed
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.own_errors import named_errors
from fedtlu_fast.randomness import torch_seeded

FIELD = "optimizer"
"""The parameter of `Local` that errors name."""
TRIED = 5
"""Steps of the trial: the first ones of an optimizer that warms up may have a learning rate of 0."""


def check_held(steps: TorchSteps, params: Sequence[Tensor], model: nn.Module) -> None:
    """Checks which parameters a torch optimizer holds.

    Frozen parameters, which have no gradient, may be among them: torch's optimizers pass them over.

    Args:
        steps: the optimizer, and the name of the function that made it.
        params: the parameters that the client trains, of `model`.
        model: the client's model, for the names of its parameters.

    Raises:
        InputError: it lacks some of these parameters, or holds others that are not frozen, or its steps need
            a closure.
    """
    closure = signature(steps.optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is Parameter.empty:
        given = f"{type(steps.optimizer).__name__}, made by {steps.name}"
        expected = "an optimizer whose step() needs no closure, since a step computes the loss only once"
        raise InputError(FIELD, given, expected, "Use another, such as torch.optim.Adam.")
    held = {id(one): one for group in steps.optimizer.param_groups for one in group["params"]}
    wanted = {id(one) for one in params}
    missing = wanted - held.keys()
    foreign = [
        one
        for place, one in held.items()
        if place not in wanted and (one.requires_grad or one.grad is not None)
    ]
    if not missing and not foreign:
        return
    names = [name for name, one in model.named_parameters() if id(one) in missing]
    wrong = [f"lacks {listed(names)}"] if names else []
    if foreign:
        shapes = listed([str(tuple(one.shape)) for one in foreign])
        wrong.append(f"also holds others, of the shapes {shapes}")
    raise InputError(
        FIELD,
        steps.name,
        f"an optimizer of exactly the parameters that the function is given; it {'; it '.join(wrong)}",
        "Pass on the function's own argument: torch.optim.Adam(parameters).",
    )


@torch.no_grad()
def try_steps(
    optimizer: Optimizer,
    begin: Callable[[], tuple[Steps, Sequence[Tensor], Sequence[Tensor]]],
    layout: ParameterLayout,
    vectors: tuple[Tensor, Tensor],
) -> None:
    """Checks that a few steps of an optimizer of the user's own class change every parameter.

    Parameters and gradients are restored afterwards.

    Args:
        optimizer: the optimizer.
        begin: returns a fresh state of the optimizer, its parameters and their gradients.
        layout: the model's layout.
        vectors: the parameters [P] of the model and their gradients [P], in whose memory `begin` works.

    Raises:
        InputError: some layer keeps all its values, or the optimizer raises.
    """
    params, grads = vectors
    before = params.clone()
    try:
        # Small values and gradients of 1, so that a step with any learning rate changes bits.
        params.fill_(0.01)
        with torch_seeded(0, "trial of the optimizer"), named_errors(FIELD, optimizer):
            steps, *own = begin()
            for _ in range(TRIED):
                grads.fill_(1.0)
                steps.step_(*own)
        still = [name for name, view in layout.views(params).items() if bool((view == 0.01).all())]
    finally:
        params.copy_(before)
        grads.zero_()
    if still:
        expected = (
            f"steps that change every parameter; with gradients of 1, they do not change {listed(still)}"
        )
        fix = "step_ has to change the tensors that it receives, which are those of start, in place."
        raise InputError(FIELD, type(optimizer).__name__, expected, fix)
