"""Builds a run from its settings."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from fedtlu_fast.build.data import data_facts
from fedtlu_fast.build.executor import choose, make_executor
from fedtlu_fast.build.identity import identity_of
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.build.privacy import account_of, check_callbacks, with_noise
from fedtlu_fast.build.server import make_server
from fedtlu_fast.build.stored import read_stored, stored
from fedtlu_fast.config import RunConfig
from fedtlu_fast.data.population import example_samples
from fedtlu_fast.environment import environment_facts
from fedtlu_fast.errors import InputError
from fedtlu_fast.executors.parts import Auto
from fedtlu_fast.models.architecture import OwnModel
from fedtlu_fast.ops.backends import check_device, resolve
from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.simulation.callbacks import Callback, EarlyStopping, Observer, SaveBest
from fedtlu_fast.simulation.founding import Founded
from fedtlu_fast.simulation.privacy_account import PrivacyAccount
from fedtlu_fast.simulation.run import Run
from fedtlu_fast.simulation.run_files import Saving
from fedtlu_fast.simulation.server import initial_state
from fedtlu_fast.simulation.standard_callbacks import WarnOfLosses
from fedtlu_fast.tasks.supervised import SupervisedTask
from fedtlu_fast.tasks.trial import try_loss, try_model, warn_of_batches
from fedtlu_fast.torch_state import own_state

logger = logging.getLogger("fedtlu_fast")


def open_run(
    config: RunConfig,
    out: Path | None = None,
    *,
    resume: bool = False,
    callbacks: Sequence[Callback | Observer] = (),
    says_shares: bool = True,
) -> Run:
    """Builds a run, or rebuilds it from its latest checkpoint.

    Args:
        config: as for `api.simulate`, and so are `out`, `resume` and `callbacks`.
        out: see above.
        resume: see above.
        callbacks: see above.
        says_shares: see `Run`.

    Raises:
        InputError: Settings, data, model, device or directory do not fit together.
    """
    check_callbacks(config.privacy.on, callbacks)
    if resume and out is None:
        raise InputError("resume", True, "a directory to resume from, in out")
    if out is not None and not resume:
        RunDirectory.check_free(out)  # a used directory should fail before data and model are built
    begun = read_stored(out) if resume and out is not None else None
    if begun is not None and isinstance(config.execution.executor, Auto):
        # A resumed run keeps the first choice, because another choice would change the last bits.
        config = config.model_copy(update={"execution": begun.execution})
    with own_state(config.threads):
        config, founded = found(config)
    return Run(
        founded,
        out,
        begun=None if begun is None else stored(begun),
        callbacks=[*_standard_callbacks(config), *callbacks],
        says_shares=says_shares,
    )


def found(config: RunConfig) -> tuple[RunConfig, Founded]:
    """Reads the data, builds the model, and chooses and starts the executor.

    Returns:
        The settings with the executor settled, and the federation before its first round.

    Raises:
        InputError: Settings, data, model and device do not fit together.
    """
    check_device("device", config.device)
    resolve(config.backend, torch.device(config.device).type)
    config = with_noise(config)
    parts = make_parts(config)
    population, trainer = parts.population, parts.trainer
    state = initial_state(trainer.layout, trainer.task.model)
    if isinstance(trainer.task, SupervisedTask):
        try_loss(trainer.task, example_samples(population), config.training.batch_size)
        warn_of_batches(trainer.task, population.test)
    elif config.model.pretrained is None and isinstance(config.model.architecture, OwnModel):
        try_model(trainer.task, example_samples(population), config.model.name_of("architecture"))
    with _of_training():
        trainer.try_optimizer()
    config, note = choose(config, population, trainer, parts.steps)
    if note:
        logger.info(note)
    settings = stored(config)
    executor = make_executor(config, population, trainer, parts.steps)
    try:
        server = make_server(config, trainer.layout, population, trainer, executor, parts.steps)
        founded = Founded(
            settings=settings,
            note=note,
            threads=config.threads,
            saving=Saving(config.checkpoint.every, config.checkpoint.minutes, config.checkpoint.retain),
            identity=identity_of(config, settings, server, state),
            environment=environment_facts(config.device, config.data.source.made_with),
            data=data_facts(config.data, population.fingerprint, parts.origin),
            server=server,
            state=state,
        )
    except BaseException:
        executor.close()
        raise
    return config, founded


@contextmanager
def _of_training() -> Iterator[None]:
    """Inside, errors of the clients' optimizer name the setting of a run."""
    try:
        yield
    except InputError as error:
        raise error.of(f"training.{error.field}") from error


@contextmanager
def founding(config: RunConfig) -> Iterator[tuple[RunConfig, Founded]]:
    """For a look at a federation that is not run: inside, PyTorch is in the state that a run computes in.

    The executor ends with it. Raises as `found` does.
    """
    with own_state(config.threads):
        settled, founded = found(config)
        try:
            yield settled, founded
        finally:
            founded.server.executor.close()


def _standard_callbacks(config: RunConfig) -> list[Callback]:
    """Returns the callbacks of every run, and those of `privacy`, `evaluation` and `checkpoint`."""
    found: list[Callback] = [WarnOfLosses()]
    if (account := account_of(config)) is not None:
        found.append(PrivacyAccount(account))
    if config.evaluation.patience is not None:
        found.append(EarlyStopping("test_loss", config.evaluation.patience))
    if config.checkpoint.best:
        found.append(SaveBest("test_loss"))
    return found
