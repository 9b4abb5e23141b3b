"""Several Ray nodes on one machine, of which one is removed and one added while a run is under way."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest

from fedtlu_fast import simulate

if find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

# Before Ray itself, as in a run.
from fedtlu_fast.executors.ray_cluster import ray

pytestmark = pytest.mark.slow

NODE = {"num_cpus": 1, "object_store_memory": 100 * 2**20}


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    yield made
    ray.shutdown()
    made.shutdown()


def test_a_node_is_removed_and_one_added_under_way(cluster: Any) -> None:
    first, _ = cluster.add_node(**NODE), cluster.add_node(**NODE)
    settings: dict[str, Any] = {
        "task": "classification",
        "data": {"source": "synthetic"},
        "partition": "natural",
        "clients": 20,
        "cohort": 12,
        "rounds": 9,
        "warmup_rounds": 1,
        "model": {"hidden": [256, 256, 256]},  # its vectors are too large to travel inside a message
        "selection": {"selector": "full"},
    }
    used: list[set[str]] = []

    def change(row: dict[str, Any]) -> None:
        used.append(_nodes_of_workers())
        if row["round"] == 3:
            cluster.remove_node(first, allow_graceful=False)
        if row["round"] == 6:
            cluster.add_node(**NODE)
            cluster.add_node(**NODE)

    execution = {"executor": f"ray:{cluster.address}", "lanes": 6, "retries": 3}
    found = simulate({**settings, "execution": execution}, callbacks=[change])
    alone = simulate({**settings, "execution": {"executor": "serial", "lanes": 6}})
    assert found.summary["params_sha256"] == alone.summary["params_sha256"]
    assert len(used[2]) == 3
    assert first.node_id not in used[-1]
    assert len(used[-1]) == 4, "machines that join are used from the next round on"


def _nodes_of_workers() -> set[str]:
    """Returns the nodes on which workers live or are being made."""
    from ray._private.state import actors

    living = [one for one in actors().values() if one["State"] in ("ALIVE", "PENDING_CREATION")]
    return {one["Address"]["NodeID"] for one in living}
