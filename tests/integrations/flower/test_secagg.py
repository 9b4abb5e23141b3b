"""FedTLU under Flower's SecAgg+ in Flower's simulation engine; `.ci/flower` runs these tests."""

import functools
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs Flower, see docs/guides/flower.md")
from flwr.common import Context, RecordDict
from flwr.server.workflow import SecAggPlusWorkflow
from support.flower_processes import QUIET

SCRIPT = Path(__file__).with_name("secagg.py")
spec = importlib.util.spec_from_file_location("flower_secagg", SCRIPT)
secagg = importlib.util.module_from_spec(spec)
spec.loader.exec_module(secagg)
CLIENTS, ARRAYS = secagg.federation.CLIENTS, 10

pytestmark = pytest.mark.timeout(900)  # Flower starts Ray, which takes its time beside other work


@functools.cache
def ran(kind):
    """The arrays that the script saves, and the metrics of every round."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "final.npz"
        command = [sys.executable, str(SCRIPT), kind, str(out)]
        done = subprocess.run(
            command, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False
        )
        assert out.exists(), done.stdout[-3000:] + done.stderr[-3000:]
        return dict(np.load(out)), json.loads(out.with_suffix(".json").read_text())


def test_a_run_on_masked_sums_ends_as_a_plain_one_to_flowers_precision():
    masked, rows = ran("masked")
    plain, expected = ran("plain")
    assert [row["chosen"] for row in rows] == [row["chosen"] for row in expected]
    assert len(rows) == secagg.ROUNDS
    # Each number of a client is off by one step of the quantisation, and counts by its share of the weights.
    weights = sum(len(secagg.federation.samples(client)[0]) for client in range(CLIENTS))
    step = 2 * secagg.CLIPPING / secagg.TARGET * secagg.MAX_WEIGHT / weights
    for index in range(ARRAYS):
        gap = np.abs(masked[f"model/{index}"] - plain[f"model/{index}"]).max()
        assert gap <= 2 * secagg.ROUNDS * CLIENTS * step


def test_the_strategy_gets_the_mean_and_no_client():
    masked, _ = ran("masked")
    plain, _ = ran("plain")
    for index in range(ARRAYS):
        one = masked[f"client/0/{index}"]
        assert all((masked[f"client/{client}/{index}"] == one).all() for client in range(CLIENTS))
        if index < ARRAYS - 2:  # all layers but the head differ from client to client
            assert not np.array_equal(plain[f"client/0/{index}"], plain[f"client/1/{index}"])


def test_flowers_workflow_takes_strategies_of_the_older_api_only():
    """When this fails, Flower has brought SecAgg+ to its message API, and the guide has to say so."""
    context = Context(1, 1, {}, RecordDict(), {})
    with pytest.raises(TypeError, match="Expect a LegacyContext"):
        SecAggPlusWorkflow(3, 2)(None, context)
