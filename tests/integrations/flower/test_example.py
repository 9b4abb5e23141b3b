"""The example app: in this process, and as its script runs it; `.ci/flower` runs these tests."""

import importlib
import re
import subprocess
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

pytest.importorskip("flwr.serverapp.strategy", reason="needs Flower, see docs/guides/flower.md")
from support.flower_messages import LocalGrid
from support.flower_processes import end_marked, environment, free_port

ROOT = Path(__file__).parents[3]
APP, GUIDE = ROOT / "examples/flower", ROOT / "docs/guides/flower.md"
NODES = 3


def swapped_lines():
    """The lines that the guide's diff removes and adds."""
    (diff,) = re.findall(r"```diff\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    lines = [(line[:1], line[1:]) for line in diff.splitlines()]
    return [line for sign, line in lines if sign == "-"], [line for sign, line in lines if sign == "+"]


@pytest.fixture
def app(monkeypatch, tmp_path):
    """Runs a copy of the app in this process, with FedAvg or as it is; returns the final model."""
    (tmp_path / "digits").mkdir()
    for path in (APP / "digits").glob("*.py"):
        (tmp_path / "digits" / path.name).write_text(path.read_text())
    monkeypatch.syspath_prepend(tmp_path)

    def run(stock=False, **config):
        if stock:
            path = tmp_path / "digits/server_app.py"
            text = path.read_text()
            for removed, added in zip(*swapped_lines(), strict=True):
                assert text.count(f"{added}\n") == 1, added
                text = text.replace(f"{added}\n", f"{removed}\n")
            path.write_text(text)
        for name in [name for name in sys.modules if name.split(".")[0] == "digits"]:
            monkeypatch.delitem(sys.modules, name)
        importlib.invalidate_caches()
        client, server = (importlib.import_module(f"digits.{side}_app").app for side in ("client", "server"))
        settings = {"rounds": 1, "width": 8, "local-steps": 2, "lr": 0.1, "min-nodes": NODES, "timeout": 60.0}
        settings |= {"client-selection": "", "save": str(tmp_path / "final.safetensors"), **config}

        def node(message):
            number = message.metadata.dst_node_id - 1
            own = {"partition-id": number, "num-partitions": NODES}
            return client(message, SimpleNamespace(node_config=own, run_config=settings))

        grid = LocalGrid({number + 1: node for number in range(NODES)})
        server(grid=grid, context=SimpleNamespace(run_config=settings))
        start = importlib.import_module("digits.task").make_model(8).state_dict()
        final = load_file(tmp_path / "final.safetensors")
        return {name for name, array in final.items() if not np.array_equal(array, start[name].numpy())}

    return run


def blocks(changed):
    return {name.split(".")[1] for name in changed if name.startswith("layers.")}


def test_the_guides_diff_is_one_import_and_one_line_and_turns_fedavg_into_fedtlu(app):
    removed, added = swapped_lines()
    assert [line.strip().split()[0] for line in removed] == ["from", "strategy"]
    assert len(added) == 2
    changed = app()
    assert len(blocks(changed)) == 2
    assert "head.weight" in changed
    assert blocks(app(stock=True)) == set("012345")


def test_clients_send_chosen_blocks_only(app):
    assert len(blocks(app(**{"client-selection": "random"}))) <= 2


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="ends processes by what /proc says of them")
def test_the_script_runs_the_app_under_flowers_simulation_engine(tmp_path):
    mark, out = uuid.uuid4().hex, tmp_path / "final.safetensors"
    ports = {"FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": free_port(), "FLWR_LOCAL_CONTROL_API_PORT": free_port()}
    env = environment(tmp_path, mark) | {name: str(port) for name, port in ports.items()}
    try:
        command = ["bash", str(APP / "run.sh"), f'rounds=2 save="{out}"']
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert out.exists(), done.stdout[-3000:] + done.stderr[-3000:]
        assert done.stdout.count("Received 10 results and 0 failures") == 2
        assert len(re.findall("applied .*layers", done.stdout)) == 2
    finally:
        end_marked(mark)
