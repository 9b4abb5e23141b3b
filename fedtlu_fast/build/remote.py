"""From settings to what a worker on another machine builds."""

from __future__ import annotations

from dataclasses import dataclass

from fedtlu_fast.build.lanes import make_lane_trainer
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.config import RunConfig
from fedtlu_fast.environment import environment_facts
from fedtlu_fast.errors import InputError
from fedtlu_fast.executors.executor import Executor
from fedtlu_fast.executors.lane_trainer import LaneTrainer
from fedtlu_fast.executors.patience import Watch
from fedtlu_fast.executors.recipe import Made
from fedtlu_fast.layout import ParameterLayout


@dataclass(frozen=True)
class RemoteRecipe:
    """Builds, from the settings, the data and the model of one worker.

    Attributes:
        config: of the run, on the device that a worker has.
    """

    config: RunConfig

    def __call__(self, watch: Watch) -> tuple[LaneTrainer, Made]:
        """What trains lanes there, and what it was made of; the start is sent with every round."""
        config = self.config
        parts = make_parts(config, start=False)
        trainer = make_lane_trainer(config, parts.population, parts.trainer, parts.steps, watch)
        return trainer, _made(config, parts.trainer.layout, parts.population.fingerprint)


def make_ray_executor(config: RunConfig, layout: ParameterLayout, fingerprint: str, address: str) -> Executor:
    """The executor on Ray.

    Args:
        config: of the run, see `choose`.
        layout: of its model.
        fingerprint: of its data.
        address: see `RayExecutor`.

    Raises:
        InputError: more than one thread is asked for.
        BackendUnavailableError: Ray is not installed, or cannot be started or reached.
    """
    # Imported late: Ray is an extra.
    from fedtlu_fast.executors.ray import RayExecutor

    if config.threads not in (1, None):
        expected = "1 with executor=ray: each worker uses one"
        raise InputError("threads", config.threads, expected, "Set execution.workers.")
    # Which GPU is each worker's is up to Ray.
    there = config.model_copy(update={"device": config.device.partition(":")[0]})
    made = _made(config, layout, fingerprint)
    source = str(config.data.source)
    return RayExecutor(RemoteRecipe(there), made, config.execution, config.cohort, source, address)


def _made(config: RunConfig, layout: ParameterLayout, fingerprint: str) -> Made:
    facts = environment_facts(config.device, config.data.source.made_with)
    return Made(layout, fingerprint, facts, config.device)
