"""The example app in a federation of real processes on loopback; `.ci/flower` runs these tests."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from support.flower_processes import Deployment
from torch.nn.functional import cross_entropy

from fedtlu_fast import Datasets, Federation, Local, SupervisedTask
from fedtlu_fast.clients.optimizer import Sgd

pytest.importorskip(
    "flwr.supernode", reason="needs Flower: pip install -c constraints-flower.txt -e '.[flower]'"
)
APP = Path(__file__).parents[3] / "examples/flower"
NODES, LR = 3, 0.02

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(sys.platform != "linux", reason="ends processes by what /proc says of them"),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with Deployment(tmp_path_factory.mktemp("flower"), NODES) as deployment:
        yield deployment


def said(pattern: str, lines: list[str]) -> list[str]:
    return [found[1] for line in lines if (found := re.search(pattern, line))]


def test_five_rounds_end_with_the_parameters_of_our_simulator(running, tmp_path, monkeypatch):
    rounds, out = 5, tmp_path / "final.safetensors"
    lines = running.run(APP, {"rounds": rounds, "lr": LR, "min-nodes": NODES, "save": str(out)})
    assert out.exists(), "".join(lines[-60:]) + running.log("link")[-3000:]
    theirs = load_file(out)

    monkeypatch.syspath_prepend(APP)
    from digits import task

    result = Federation(
        SupervisedTask(task.make_model(32), cross_entropy),
        Datasets([task.load(part, NODES) for part in range(NODES)], task.load_test()),
        cohort=NODES,
        local=Local(Sgd(lr=LR, momentum=0.9), steps=5, batch_size=1000, clip_norm=None),
        executor="serial",
    ).run(rounds)
    mine = {name: tensor.numpy() for name, tensor in result.state_dict().items()}
    assert theirs.keys() == mine.keys()
    worst = max(np.abs(theirs[name].numpy() - array).max() for name, array in mine.items())
    start = task.make_model(32).state_dict()
    moved = max(np.abs(array - start[name].numpy()).max() for name, array in mine.items())
    print(f"\nlargest difference {worst:.1e}; largest step from the start {moved:.1e}")
    assert moved > 0.03
    # The simulator's batches have the samples in another order, so that the last bits of their means differ.
    assert worst < 1e-4


def test_clients_that_send_one_block_send_fewer_bytes(running):
    sent, wide = {}, {"rounds": 1, "width": 256, "local-steps": 1, "min-nodes": NODES}
    for selection in ("", "random"):
        before = running.wire.up, running.wire.down
        lines = running.run(APP, {**wide, "client-selection": selection})
        assert said(r"Received (\d) results", lines) == ["3"], "".join(lines)
        sent[selection] = running.wire.up - before[0], running.wire.down - before[1]
    print(f"\nbytes up and down in a round of {NODES} clients: {sent}")
    assert sent["random"][0] < sent[""][0] / 4
    assert sent["random"][1] == pytest.approx(sent[""][1], rel=0.1)


def test_a_run_goes_on_when_a_node_is_killed(running):
    """It has to be the last: the node does not come back."""

    def kill_in_round_2(line: str) -> None:
        if "[ROUND 2/4]" in line:
            running.kill(2)

    lines = running.run(APP, {"rounds": 4, "min-nodes": 2}, kill_in_round_2)
    received = said(r"Received (\d results and \d failures)", lines)
    print(f"\n{received}")
    assert received[0] == "3 results and 0 failures"
    assert received[1] == "2 results and 1 failures"
    assert received[3] == "2 results and 0 failures"
    assert len(said(r"applied (.*)", lines)) == 4
