"""From settings to what a worker builds in a process that is no fork of the run's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fedtlu_fast.build.lanes import make_lane_trainer
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.config import RunConfig
from fedtlu_fast.environment import differences, environment_facts
from fedtlu_fast.errors import InputError
from fedtlu_fast.executors.parts import Serial
from fedtlu_fast.executors.patience import Watch
from fedtlu_fast.executors.recipe import LaneWorker
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.torch_state import own_state


@dataclass(frozen=True)
class RemoteRecipe:
    """A `Recipe`: builds, from the settings, the data and the model of one worker.

    Attributes:
        config: of the run, on the device that a worker has.
        layout: of the run's model.
        fingerprint: of the run's data.
        facts: about the run's process and machine; see `environment`.
    """

    config: RunConfig
    layout: ParameterLayout
    fingerprint: str
    facts: Mapping[str, str]

    def __call__(self, watch: Watch | None = None) -> LaneWorker:
        """See `Recipe`; the start is sent with every round."""
        config = self.config
        threads = config.threads or 1  # without a word one each, for there may be many on this machine
        with own_state(threads):
            parts = make_parts(config, start=False)
            trainer = make_lane_trainer(config, parts.population, parts.trainer, parts.steps, watch)
            elsewhere = differences(_facts(config), self.facts, "there")
        if (parts.trainer.layout, parts.population.fingerprint) != (self.layout, self.fingerprint):
            expected = "the same data on every machine"
            found = f"{expected}: {elsewhere}" if elsewhere else expected
            raise InputError("data.source", str(config.data.source), found)
        return LaneWorker(trainer, config.device, threads, elsewhere)


def make_recipe(config: RunConfig, layout: ParameterLayout, fingerprint: str) -> RemoteRecipe:
    """The recipe of a run.

    Args:
        config: of the run, see `choose`.
        layout: of its model.
        fingerprint: of its data.
    """
    # Which GPU is each worker's is up to what starts it, and what starts it need not be known there.
    there = config.execution.model_copy(update={"executor": Serial()})
    update = {"device": config.device.partition(":")[0], "execution": there}
    return RemoteRecipe(config.model_copy(update=update), layout, fingerprint, _facts(config))


def _facts(config: RunConfig) -> dict[str, str]:
    return environment_facts(config.device, config.data.source.made_with)
