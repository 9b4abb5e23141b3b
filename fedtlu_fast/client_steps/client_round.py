"""Takes one client through the steps of a round, before and after its training."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

from torch import Tensor

from fedtlu_fast.client_steps.halves import FIELD
from fedtlu_fast.client_steps.returned import check_start, check_update, wrong_kind
from fedtlu_fast.client_steps.shared import given_to_client
from fedtlu_fast.client_steps.step import ClientContext, ClientStep, Vectors, does
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate
from fedtlu_fast.data.population import Samples
from fedtlu_fast.own_draws import seeded_for
from fedtlu_fast.part_memory import ClientMemory
from fedtlu_fast.remembered import client_values
from fedtlu_fast.unchanged import unchanged

StepMemories = Mapping[str, ClientMemory]
"""The steps' memories of one client, by the step's name."""


class ClientRound:
    """The passage of one client through the steps of a round.

    Attributes:
        memory: the steps' new memories of the client after `after_training`, by the step's name.
    """

    def __init__(self, taken: list[tuple[ClientStep, ClientContext, str]], vectors: Vectors) -> None:
        self._taken, self._vectors = taken, vectors
        self._start: ClientStart | None = None
        self.memory: dict[str, ClientMemory] = {}

    def model(self) -> Vectors:
        """Returns the model with which the client starts."""
        return self._model("own_model")

    def tested_model(self) -> Vectors:
        """Returns the model with which the client is tested."""
        return self._model("tested_model")

    def _model(self, hook: Literal["own_model", "tested_model"]) -> Vectors:
        model = self._vectors
        for step, context, name in self._taken:
            with _calling(step, context, name, hook, model):
                model = getattr(step, hook)(context, model)
        return model

    def before_training(self, samples: Samples) -> ClientStart:
        """Returns the client's start after all steps.

        Raises:
            InputError: a step changed parameters or buffers in `before`, which only `own_model` may do.
        """
        start = ClientStart(*self.model(), samples)
        for step, context, name in self._taken:
            with _calling(step, context, name, "before", start=start):
                changed = step.before(context, start)
            if not isinstance(changed, ClientStart):
                raise wrong_kind(name, "before", changed, "the ClientStart")
            check_start(name, step, start, changed, len(context.facts.layout.blocks))
            start = changed
        self._start = start
        return start

    def after_training(self, update: ClientUpdate) -> ClientUpdate:
        """Returns the update that the client sends after all steps."""
        for step, context, name in self._taken:
            given = replace(update, memory={})
            with _calling(step, context, name, "after", start=self._start):
                update = step.after(replace(context, start=self._start), given)
            check_update(name, given, update, len(context.facts.layout.blocks), context.order is not None)
            if own := client_values(f"{FIELD}.{name}", update.memory):
                self.memory[name] = own
        return update


@contextmanager
def _calling(
    step: ClientStep,
    context: ClientContext,
    name: str,
    hook: str,
    model: Sequence[Tensor] = (),
    start: ClientStart | None = None,
) -> Iterator[None]:
    """Prepares for a call of a hook: what it must not change, and what it may draw."""
    own = f"{FIELD}.{name}"
    with unchanged(own, step, hook, given_to_client(context, model, start)):
        default = not does(step, hook) and not (hook == "tested_model" and does(step, "own_model"))
        if default:  # seeding takes longer than a hook that does nothing
            yield
            return
        with seeded_for(step, context.facts.seed, f"{own}.{hook}", context.round, context.number):
            yield
