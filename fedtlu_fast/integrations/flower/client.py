"""A Flower ClientApp of a simulation's parts: the same task, data and `Local`, and the same bits."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from fedtlu_fast.clients.local import Local
from fedtlu_fast.clients.training import LocalTrainer
from fedtlu_fast.data.datasets import Datasets
from fedtlu_fast.errors import InputError, check_kind
from fedtlu_fast.integrations.flower.chosen_layers import CHOSEN, send_chosen_layers
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.tasks.supervised import fitted
from fedtlu_fast.tasks.task import Task
from fedtlu_fast.torch_state import own_state

PARTITION = "partition-id"
"""The key of a node's configuration with the number of its client, as Flower's simulation engine sets it."""


def client_app(
    task: Task,
    data: Datasets,
    *,
    local: Local | None = None,
    seed: int = 0,
    device: str = "cpu",
    threads: int | None = 1,
) -> ClientApp:
    """Returns a ClientApp whose clients train as those of ``Federation(task, data, local=local, seed=seed)``.

    The client's number is the node's ``partition-id``; a SuperNode gets it by ``--node-config
    'partition-id=3'``. Where a node holds only its own samples, make `data` with a function:
    ``Datasets(train=lambda client: own_samples(), test=..., clients=10)``. Clients train and send only the
    blocks that `FedTLU(client_selection=...)` chooses for them, use the ``proximal-mu`` that `FedTLUProx`
    sends, and test the global model on their samples in `Datasets.held_out`. Client steps of a simulation do
    not run here.

    Args:
        task: the model and its loss. Its numbers do not matter, because the server sends the global ones.
        data: the data of the clients.
        local: how each client trains; None: ``Local()``.
        seed: the seed of the batches and of dropout.
        device: the device on which clients train: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: the number of CPU threads of PyTorch for a client; None: PyTorch's own number. A simulation
            has 1 unless its settings say otherwise, and other numbers can change the last bits.

    Raises:
        InputError: an argument is of another kind. In a client's turn: the node has no ``partition-id``, or
            the arrays are not those of the task's model.

    Examples:
        >>> app = client_app(task, data, local=Local("sgd", lr=0.1, steps=5))  # doctest: +SKIP
    """
    check_kind("data", data, Datasets, "fedtlu_fast.Datasets(...) with the data of each client")
    local = Local() if local is None else local
    check_kind("local", local, Local, "fedtlu_fast.Local(...), which describes a client's training")
    clients = _Clients(task, data, local, seed, device, threads)
    app = ClientApp(mods=[send_chosen_layers])
    app.train()(clients.train)
    if data.held_out is not None:
        app.evaluate()(clients.evaluate)
    return app


class _Clients:
    """Trains and tests the clients whose turn it is in this process, in the same memory."""

    def __init__(
        self, task: Task, data: Datasets, local: Local, seed: int, device: str, threads: int | None
    ) -> None:
        self._task, self._data, self._local = task, data, local
        self._seed, self._device, self._threads = seed, device, threads

    @cached_property
    def _built(self) -> tuple[LocalTrainer, Any]:
        """The trainer and the population, which each process builds when its first client has its turn."""
        task, population = fitted(copy.deepcopy(self._task), self._data)
        task.model.to(self._device)
        # What a message names are layers, so that each layer is a block here.
        layout = ParameterLayout.from_module(task.model, "tensor")
        return LocalTrainer(task, layout, self._local, self._seed), population.to(self._device)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_built"}

    def train(self, message: Message, context: Context) -> Message:
        """Answers a ``train`` message."""
        config = next(iter(message.content.config_records.values()), ConfigRecord())
        with own_state(self._threads):
            trainer, population = self._loaded(message)
            client = self._client(context)
            update = trainer.train(
                trainer.params.clone(),
                trainer.layout.flatten_buffers(trainer.task.model),
                population.train(client),
                int(config["server-round"]),
                client,
                _blocks(trainer.layout, config),
                mu=config.get("proximal-mu"),
            )
            arrays = ArrayRecord(trainer.task.model.state_dict())
        metrics = {"train-loss": update.loss, "num-examples": update.samples}
        return _reply(message, {"arrays": arrays}, metrics)

    def evaluate(self, message: Message, context: Context) -> Message:
        """Answers an ``evaluate`` message with the loss and the task's figures on the client's own tests."""
        with own_state(self._threads):
            trainer, population = self._loaded(message)
            samples = population.held_out(self._client(context))
            if not len(samples):
                return _reply(message, {}, {"loss": 0.0, "num-examples": 0})
            found = trainer.task.evaluate(samples.alone(), self._local.batch_size)
        figures = {name: float(value) for name, value in found.means.items()}
        return _reply(message, {}, {"loss": float(found.loss), **figures, "num-examples": len(samples)})

    def _loaded(self, message: Message) -> tuple[LocalTrainer, Any]:
        """The trainer, whose model has the numbers of the message, and the population."""
        trainer, population = self._built
        (record,) = message.content.array_records.values()
        model = trainer.task.model
        if record.keys() != model.state_dict().keys():
            differ = sorted(record.keys() ^ model.state_dict().keys())
            raise InputError("arrays", f"{differ[0]} on one side only", "those of the task's model")
        model.load_state_dict({key: torch.from_numpy(array.numpy()) for key, array in record.items()})
        return trainer, population

    def _client(self, context: Context) -> int:
        found = context.node_config.get(PARTITION)
        if not isinstance(found, int) or not 0 <= found < self._data.number:
            expected = f"a whole number below {self._data.number}, the number of clients"
            raise InputError(
                f"node_config: {PARTITION}", found, expected, "Pass --node-config 'partition-id=0'."
            )
        return found


def _blocks(layout: ParameterLayout, config: ConfigRecord) -> tuple[int, ...] | None:
    """The blocks that the server has chosen; None: all."""
    if CHOSEN not in config:
        return None
    names = set(config[CHOSEN])
    return tuple(index for index, name in enumerate(layout.names) if name in names)


def _reply(message: Message, records: dict[str, Any], metrics: Mapping[str, float]) -> Message:
    return Message(RecordDict({**records, "metrics": MetricRecord(dict(metrics))}), reply_to=message)
