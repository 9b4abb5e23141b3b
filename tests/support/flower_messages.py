"""Flower's messages and a grid without its engine, for tests of strategies and clients in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

if find_spec("flwr.supercore.task_identity"):  # newer releases make messages only inside of a running task
    from flwr.supercore.task_identity import TaskIdentity

    TaskIdentity.task_id = TaskIdentity.run_id = TaskIdentity.node_id = 1

Arrays = Mapping[str, np.ndarray]


def record_of(arrays: Arrays) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def message(
    arrays: Arrays, config: Mapping[str, object] | None = None, node: int = 1, kind: str = "train"
) -> Message:
    """A message of the server to a node."""
    content = RecordDict({"arrays": record_of(arrays), "config": ConfigRecord(dict(config or {}))})
    return Message(content, dst_node_id=node, message_type=kind)


def reply(to: Message, arrays: Arrays, **metrics: float) -> Message:
    content = RecordDict({"arrays": record_of(arrays), "metrics": MetricRecord(metrics)})
    return Message(content, reply_to=to)


class LocalGrid:
    """A `Grid` of nodes that are functions of this process."""

    def __init__(self, nodes: Mapping[int, Callable[[Message], Message]]) -> None:
        self._nodes = nodes

    def get_node_ids(self) -> list[int]:
        return list(self._nodes)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        ids = [one.metadata.dst_node_id for one in messages]  # a SuperLink's grid goes through them twice
        sent = list(messages)
        assert ids == [one.metadata.dst_node_id for one in sent]
        return [self._nodes[one.metadata.dst_node_id](one) for one in sent]
