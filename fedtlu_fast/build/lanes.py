"""From settings to what trains the clients in one process."""

from __future__ import annotations

from fedtlu_fast.build.fits import check_engine
from fedtlu_fast.build.recorded import asked_facts
from fedtlu_fast.client_steps import ClientSteps
from fedtlu_fast.clients.compiled import CompiledTrainer
from fedtlu_fast.clients.groups import VectorizedGroups
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.clients.vectorized import VectorizedTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.ahead import AheadPopulation
from fedtlu_fast.data.population import Population, example_samples
from fedtlu_fast.executors.lane_trainer import Engines, LaneTrainer
from fedtlu_fast.executors.patience import Watch
from fedtlu_fast.executors.probing import Prober
from fedtlu_fast.scoring.units import scored_layout


def make_lane_trainer(
    config: RunConfig,
    population: Population,
    trainer: LocalTrainer,
    steps: ClientSteps,
    watch: Watch | None = None,
) -> LaneTrainer:
    """The trainer of lanes that the settings name.

    Args:
        config: of the run.
        population: says what each client holds.
        trainer: trains one client.
        steps: what clients do around training.
        watch: see `Watch`.

    Raises:
        CannotCompileError: see `CompiledTrainer`.
        CannotVectorizeError: see `VectorizedTrainer`.
        InputError: the engine cannot do what a part wants.
    """
    execution, chosen = config.execution, config.client_selection
    clients_per_batch, example = execution.clients_per_batch or 1, example_samples(population)
    parts = (trainer.task, trainer.layout, trainer.local, config.seed)
    engines, many = Engines(trainer), None
    if execution.engine == "compiled":
        compiled = CompiledTrainer(*parts, example)
        engines = Engines(compiled, compiled if clients_per_batch > 1 else None, clients_per_batch)
    elif clients_per_batch > 1:
        most = config.participation.sampler.most(config.clients, config.cohort)
        clients_per_batch = min(clients_per_batch, most)  # Poisson sampling may draw more than the cohort
        many = VectorizedTrainer(*parts, clients_per_batch, example, execution.precision)
        groups = VectorizedGroups(many, trainer, config.backend)
        engines = Engines(groups, groups, clients_per_batch)
    check_engine(config, steps, engines.one, execution.clients_per_batch or 1)
    layout = trainer.layout
    selector, asked = config.selection.selector, asked_facts(config)
    return LaneTrainer(
        population,
        layout,
        steps,
        engines,
        Prober(
            trainer,
            many,
            clients_per_batch,
            metrics=chosen.selector.probes,
            batches=chosen.selector.probe_batches,
            backend=config.backend,
        ),
        normed=scored_layout(layout, selector.scored_layers) if "client_norms" in asked else None,
        with_stats="client_stats" in asked,
        valued=config.seed if "client_values" in asked else None,
        client_errors=execution.client_errors,
        backend=config.backend,
        announce=population.announce if isinstance(population, AheadPopulation) else None,
        watch=watch,
    )
