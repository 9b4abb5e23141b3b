"""Builds the data of a federation from the settings."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedtlu_fast.config import DataConfig, RunConfig
from fedtlu_fast.data.federated import Encoded, FederatedData
from fedtlu_fast.data.federation import federate, public_rows
from fedtlu_fast.data.sources.source import ClientSource
from fedtlu_fast.data.splits import Origin
from fedtlu_fast.errors import InputError
from fedtlu_fast.own_errors import named_errors
from fedtlu_fast.tasks.builder import Reading, TaskBuilder, builder_of, check_source


def reading_of(config: RunConfig) -> Reading:
    """Returns the settings with which a source is read."""
    return Reading(
        clients=config.clients,
        seed=config.seed,
        window=config.data.window,
        vocabulary=config.data.vocabulary,
        test_fraction=config.data.test_fraction,
        local_fraction=config.data.local_fraction,
        tokenizer=config.model.pretrained,
    )


def load_federation(config: RunConfig) -> FederatedData:
    """Reads the data that the settings describe and deals them to clients, or opens data per client.

    Raises:
        InputError: The source cannot be read, or holds too few samples for so many clients.
    """
    source, task, pretraining = config.data.source, builder_of(config.task), config.pretraining
    if pretraining.epochs and isinstance(source, ClientSource):
        name = str(source).partition(":")[0]
        raise InputError("pretraining.epochs", pretraining.epochs, f"0 with data.source={name}")
    check_source(config.task, source)
    with named_errors("data.source", source):
        found = task.read(source, reading_of(config))
    if isinstance(found, FederatedData):
        return found
    public = np.empty(0, np.int64)
    if pretraining.epochs:
        public = public_rows(len(found.train[0]), pretraining.share, pretraining.seed)
    _check_enough(config, task, found, len(public))
    return federate(
        found,
        public,
        clients=config.clients,
        partitioner=config.partition.partitioner,
        min_samples=config.partition.min_samples,
        local_fraction=config.data.local_fraction,
        seed=config.seed,
    )


def _check_enough(config: RunConfig, task: TaskBuilder, found: Encoded, set_aside: int) -> None:
    clients, least, what = config.clients, config.partition.min_samples, task.what
    samples, tests = len(found.train[0]) - set_aside, len(found.test[0])
    size = f", of {config.data.window} tokens each" if task.cuts else ""
    shorter = ", a shorter window" if task.cuts else ""
    if samples < clients * least or not tests:
        raise InputError(
            "data.source",
            str(config.data.source),
            f"{what} for {clients * least} samples ({clients} clients of {least} or more) and a test, but it "
            f"gives {samples} samples to train on and {tests} to test{size}",
            f"Use fewer clients{shorter} or more {what}.",
        )


def data_facts(data: DataConfig, fingerprint: str, origin: Origin | None) -> dict[str, Any]:
    """The data, as the summary has them: their source, and which entries of it were read as what.

    Where the source has no test of its own, ``share`` of the training data is the test.
    """
    read = origin.facts() if origin is not None else {}
    if origin is not None and origin.test is None:
        read["test"]["share"] = data.test_fraction
    return {"source": str(data.source), "fingerprint": fingerprint, **read}
