"""Partitions of Flower Datasets, and of objects with their interface, are clients as they are."""

import os
import pickle
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import nn

from fedtlu_fast import Datasets, Federation, InputError, Local, SupervisedTask
from fedtlu_fast.data.partitions import Partitions

ROWS = 24


def table() -> Any:
    draws = torch.Generator().manual_seed(0)
    inputs = torch.randn(ROWS, 3, generator=draws).tolist()
    labels = [row % 2 for row in range(ROWS)]
    return datasets.Dataset.from_dict({"x": inputs, "y": labels}).with_format("torch")


class Fours:
    """A partitioner with the interface of Flower Datasets': each partition holds four rows."""

    def __init__(self, data: Any) -> None:
        self.data, self.loaded = data, []

    @property
    def num_partitions(self) -> int:
        return len(self.data) // 4

    def load_partition(self, partition_id: int) -> Any:
        self.loaded.append(partition_id)
        return self.data.select(range(4 * partition_id, 4 * partition_id + 4))


class Federated:
    """A federated data set with the interface of Flower Datasets'."""

    def __init__(self, **partitioners: Fours) -> None:
        self._own = partitioners

    @property
    def partitioners(self) -> dict[str, Fours]:
        return self._own

    def load_partition(self, partition_id: int, split: str | None = None) -> Any:
        return self._own[split or next(iter(self._own))].load_partition(partition_id)


class Linear(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


def task() -> SupervisedTask:
    torch.manual_seed(3)
    return SupervisedTask(Linear(3, 2), nn.functional.cross_entropy)


def weights(data: Datasets) -> torch.Tensor:
    local = Local("sgd", lr=0.1, steps=2, batch_size=2)
    federation = Federation(task(), data, cohort=3, local=local, selection="full", executor="serial")
    return federation.run(2).params


@pytest.mark.parametrize("make", [Fours, lambda data: Federated(train=Fours(data))])
def test_partitions_are_the_clients_they_would_be_in_a_list(make: Any) -> None:
    data = table()
    listed = Datasets([data.select(range(4 * at, 4 * at + 4)) for at in range(6)], data)
    dealt = Datasets(make(data), data)
    assert (dealt.number, listed.number) == (6, 6)
    assert dealt.population().sizes().tolist() == [4] * 6
    assert dealt.population().fingerprint == listed.population().fingerprint
    assert torch.equal(weights(dealt), weights(listed))
    in_tensors = Datasets([dict(held[:]) for held in listed.train], dict(data[:]))
    assert torch.equal(weights(in_tensors), weights(listed))


def test_partitions_are_loaded_when_a_client_is_drawn() -> None:
    fours = Fours(table())
    data = Datasets(fours, table(), held_out=Fours(table()))
    assert fours.loaded == []
    data.population().train(2)
    assert fours.loaded == [2]
    assert isinstance(data.train, Partitions)
    assert len(data.train[1:3]) == 2
    with pytest.raises(IndexError):
        data.train[6]
    again = pickle.loads(pickle.dumps(data))  # noqa: S301
    assert torch.equal(again.train[5][:]["x"], data.train[5][:]["x"])


def test_what_cannot_be_partitioned_is_refused() -> None:
    class Empty(Fours):
        @property
        def num_partitions(self) -> int:
            raise AttributeError("The dataset field should be set before using it")

    with pytest.raises(InputError, match=r"train: got 'Empty'; .*should be set.*partitioner\.dataset ="):
        Datasets(Empty(table()), table())
    both = Federated(train=Fours(table()), dev=Fours(table()))
    with pytest.raises(InputError, match=r"has train, dev\. Name the split: .*ers\['train'\]"):
        Datasets(both, table())
    with pytest.raises(InputError, match=r"train: got 3; expected a list .*, a partitioner, or a function"):
        Datasets(3, table())  # type: ignore[arg-type]


def test_the_real_flower_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "FLWR_TELEMETRY_ENABLED", "0")
    flower = pytest.importorskip("flwr_datasets")
    partitioners = pytest.importorskip("flwr_datasets.partitioner")
    data = table()
    dirichlet = partitioners.DirichletPartitioner(
        num_partitions=3, partition_by="y", alpha=5.0, min_partition_size=2, seed=1
    )
    with pytest.raises(InputError, match=r"partitioner\.dataset = dataset"):
        Datasets(partitioners.NaturalIdPartitioner("y"), data)
    dirichlet.dataset = data
    dealt = Datasets(dirichlet, data)
    assert int(dealt.population().sizes().sum()) == ROWS
    listed = Datasets([dirichlet.load_partition(at) for at in range(3)], data)
    assert torch.equal(weights(dealt), weights(listed))

    path = tmp_path / "rows.csv"
    path.write_text("x,y\n" + "".join(f"{row}.5,{row % 2}\n" for row in range(ROWS)))
    federated = flower.FederatedDataset(
        dataset="csv", data_files={"train": str(path)}, partitioners={"train": 4}, cache_dir=str(tmp_path)
    )
    by_file = Datasets(federated, federated.load_split("train"))
    assert by_file.number == 4
    assert by_file.population().sizes().tolist() == [6] * 4
    rows = [row["x"] for client in by_file.train for row in client]
    assert sorted(rows) == [row + 0.5 for row in range(ROWS)]
