"""FedTLU inside Flower's own simulation engine; `.ci/flower` runs these tests where Flower is installed."""

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
from torch.nn import functional as F

from fedtlu_fast import Datasets, Federation, SupervisedTask

pytest.importorskip("flwr", reason="needs Flower, see docs/guides/flower.md")
from support.flower_processes import QUIET

SCRIPT = Path(__file__).with_name("federation.py")
spec = importlib.util.spec_from_file_location("flower_federation", SCRIPT)
federation = importlib.util.module_from_spec(spec)
spec.loader.exec_module(federation)


pytestmark = pytest.mark.timeout(900)  # Flower starts Ray, which takes its time beside other work


@functools.cache
def ran(kind):
    """The final arrays and the metrics of every round."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "final.npz"
        command = [sys.executable, str(SCRIPT), kind, str(out)]
        done = subprocess.run(
            command, env={**os.environ, **QUIET}, capture_output=True, text=True, check=False
        )
        assert out.exists(), done.stdout[-3000:] + done.stderr[-3000:]
        return dict(np.load(out)), json.loads(out.with_suffix(".json").read_text())


def ours(selection):
    clients = [federation.samples(client) for client in range(federation.CLIENTS)]
    task = SupervisedTask(federation.net(), F.cross_entropy)
    result = Federation(
        task,
        Datasets(clients, clients[0]),
        cohort=federation.CLIENTS,
        local=federation.LOCAL,
        selection=selection,
        granularity="module",
        keep=2,
        executor="serial",
    ).run(federation.ROUNDS)
    return {name: tensor.numpy() for name, tensor in result.state_dict().items()}, result


@pytest.mark.parametrize(
    ("kind", "selection"), [("full", "fedtlu"), ("stock", "full"), ("trainer", "fedtlu")]
)
def test_five_rounds_under_flower_end_with_the_parameters_of_our_simulator(kind, selection):
    theirs, _ = ran(kind)
    mine, _ = ours(selection)
    assert theirs.keys() == mine.keys()
    for name, array in mine.items():
        np.testing.assert_allclose(theirs[name], array, rtol=1e-5, atol=1e-6, err_msg=name)


def test_metrics_carry_scores_and_choice():
    _, rows = ran("full")
    assert len(rows) == federation.ROUNDS
    for row in rows:
        scores = [row[f"score/{name}"] for name in "0246"]
        best = sorted(np.argsort(scores)[-2:].tolist())
        assert row["chosen"] == [*best, 4], "the two best of four like blocks, and the head"
        assert row["sent-share"] == 1
        assert 0 < row["loss"] < 2


def test_clients_send_only_their_own_block_and_the_head():
    _, rows = ran("subset")
    total, block, head = 4 * 272 + 51, 272, 51
    for row in rows:
        assert row["sent-share"] == pytest.approx((block + head) / total)
    assert any(row["chosen"] != rows[0]["chosen"] for row in rows)
