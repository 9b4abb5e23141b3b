"""Strategies for Flower's message API (`flwr.serverapp.strategy`) that update only the layers that matter."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from logging import INFO, WARNING
from math import inf
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, FedProx
from torch import nn

from fedtlu_fast.errors import InputError
from fedtlu_fast.integrations.flower.arrays import views_of
from fedtlu_fast.integrations.flower.checks import (
    check_replies,
    dotted_names,
    say_what_is_decided,
    warn_of_cohort,
)
from fedtlu_fast.integrations.flower.chosen_layers import CHOSEN
from fedtlu_fast.integrations.flower.orders import LayerOrders
from fedtlu_fast.integrations.flower.steps import metrics_of, step_of
from fedtlu_fast.integrations.global_model import GlobalModel
from fedtlu_fast.integrations.layer_update import without_settings
from fedtlu_fast.integrations.round import Step
from fedtlu_fast.selection import Selector
from fedtlu_fast.selection.budgets import Budget


class FedTLU(FedAvg):  # type: ignore[misc]
    """FedAvg that scores the layers of the aggregated change and applies only the best blocks (FedTLU).

    It replaces `flwr.serverapp.strategy.FedAvg` in a ServerApp; the ClientApp stays as it is. Replies are
    averaged one after another by compiled kernels. Beside the replies, the server holds two models whatever
    the number of clients: its own and the running sum. In each round the `MetricRecord` also holds the score
    of every block (``score/NAME``), the indices of the chosen blocks (``chosen``), and the shares of the
    parameters that were updated and sent (``updated-share``, ``sent-share``).

    Args:
        model: a module of the same architecture. It says which arrays are trainable parameters, which are
            buffers, and which are tied; its numbers do not matter. Without it, this follows from the names
            and contents of the arrays.
        names: the dotted names of the arrays in their order, for records without names (a list of arrays);
            None takes the names of the record, or of the state dict of `model`.
        client_selection: which blocks each client trains and sends: a client selector that needs no
            numbers from the clients, or its name (``random``, ``top``, ``bottom``, ``both``, ``fedpart``,
            ``fedlp``). The ClientApp needs `send_chosen_layers` among its mods. None: clients train all.
        budget: how many blocks each client trains: a number, or a `Budget`.
        settings: parameters of `LayerUpdate` (``selection``, ``keep``, ``aggregation``,
            ``server_optimizer``, ...), and of Flower's strategy (``fraction_train``, ...).

    Raises:
        InputError: a setting is unknown or does not fit; the message names it.
    """

    def __init__(
        self,
        *,
        model: nn.Module | None = None,
        names: Sequence[str] | None = None,
        client_selection: str | Selector | None = None,
        budget: int | Budget = 1,
        **settings: Any,
    ) -> None:
        self.update, rest = without_settings(settings)
        super().__init__(**rest)
        self.last_step: Step | None = None
        self._module, self._names = model, names
        self._orders = (
            None if client_selection is None else LayerOrders(client_selection, budget, self.update.seed)
        )
        self._model: GlobalModel | None = None
        self._dotted: dict[str, str] = {}
        self._asked: dict[int, list[str]] = {}
        self._warned = False

    def summary(self) -> None:
        """Logs the settings."""
        log(INFO, "\t├──> FedTLU:")
        for name in ("selection", "keep", "aggregation", "server_optimizer"):
            log(INFO, "\t│\t├── %s: %s", name, getattr(self.update, name))
        super().summary()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remembers the global arrays, from which all clients of the round start, and sends them."""
        if self._model is None:
            self._dotted = dict(
                zip(arrays, dotted_names(list(arrays), self._names, self._module), strict=True)
            )
            self._model = GlobalModel(views_of(arrays, self._dotted), self.update, self._module)
            say_what_is_decided(self.update.selection, self._model.room)
        else:
            self._model.load(views_of(arrays, self._dotted))
        # A list: Flower's grids go through the messages more than once.
        messages = list(super().configure_train(server_round, arrays, config, grid))
        warn_of_cohort(self.update, len(messages))
        self._asked = {}
        if self._orders is None:
            return messages
        clients = [int(message.metadata.dst_node_id) for message in messages]
        keys = {name: key for key, name in self._dotted.items()}
        orders = self._orders.of(self._model, server_round, clients)
        self._asked = {client: [keys[name] for name in names] for client, names in orders.items()}
        return [self._with_order(message) for message in messages]

    def _with_order(self, message: Message) -> Message:
        """Returns the message with the names of the arrays that its client trains and sends."""
        client = int(message.metadata.dst_node_id)
        content = RecordDict(dict(message.content))
        config = {**message.content[self.configrecord_key], CHOSEN: self._asked[client]}
        content[self.configrecord_key] = ConfigRecord(config)
        return Message(content, dst_node_id=client, message_type=message.metadata.message_type)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Averages the replies, scores the change, chooses blocks and applies them.

        Returns:
            The whole model and the metrics of the round; the model is None when no reply could be used.

        Raises:
            InputError: a reply's arrays have other names or shapes than the global ones.
            InconsistentMessageReplies: replies lack the arrays, the metrics or the weight.
        """
        received, _ = self._check_and_log_replies(replies, is_train=True, validate=False)
        if received:
            check_replies([message.content for message in received], self.weighted_by_key)
        if not received or self._model is None:
            return None, None
        # In a fixed order: the order of arrival would change the last bits.
        received.sort(key=lambda message: int(message.metadata.src_node_id))
        contents = [message.content for message in received]
        metrics = self.train_metrics_aggr_fn(contents, self.weighted_by_key)
        clients = [int(message.metadata.src_node_id) for message in received]
        weights = [self._weight(content) for content in contents]
        replies_of = {}
        for client, weight, content in zip(clients, weights, contents, strict=True):
            (record,) = content.array_records.values()
            self._check_order(client, record)
            replies_of[client] = weight, views_of(record, self._dotted)
        nodes = {client: client for client in clients}
        self.last_step = step = step_of("aggregate_train", self._model, server_round, replies_of, nodes)
        if step is None:
            return None, metrics
        arrays = self._model.arrays()
        record = ArrayRecord({key: Array(arrays[name]) for key, name in self._dotted.items()})
        found = MetricRecord() if metrics is None else metrics
        for name, value in {**metrics_of(step), "chosen": list(step.selection.blocks)}.items():
            found[name] = value
        return record, found

    def _check_order(self, client: int, record: ArrayRecord) -> None:
        """Warns once, when a client sends arrays that it was not asked for."""
        if self._warned or client not in self._asked:
            return
        more = len(record.keys() - set(self._asked[client]))
        if not more:
            return
        self._warned = True
        said = "aggregate_train: client %d sent %d arrays more than it was asked for, which are averaged too"
        log(WARNING, f"{said}. Does its ClientApp have mods=[send_chosen_layers]?", client, more)

    def _weight(self, content: Any) -> float:
        (metrics,) = content.metric_records.values()
        weight = metrics[self.weighted_by_key]
        if not 0 <= weight < inf:
            raise InputError(self.weighted_by_key, weight, "a finite number of samples, 0 or more")
        return float(weight)


class FedTLUProx(FedTLU, FedProx):  # type: ignore[misc]
    """FedTLU whose clients train with FedProx's term: it sends ``proximal-mu`` as Flower's FedProx does.

    It takes ``proximal_mu``, which is FedProx's mu (0 or more), and the arguments of `FedTLU`.
    """
