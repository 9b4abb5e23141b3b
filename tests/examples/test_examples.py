"""Tests that the examples run and do what they say."""

import importlib
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.own import federated
from torch.nn import functional as F

from fedtlu_fast.data.datasets import Datasets
from fedtlu_fast.errors import InputError
from fedtlu_fast.tasks.supervised import SupervisedTask

EXAMPLES = Path(__file__).parents[2] / "examples"


def module_of(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_round_by_the_three_verbs_is_a_round_of_ours(capsys):
    example = module_of("round")
    torch.manual_seed(3)
    clients = [(torch.randn(n, 5), torch.randint(0, 3, (n,))) for n in (6, 9, 20, 13)]
    own, model = example.build_model(), example.build_model()
    own.load_state_dict(model.state_dict())
    names = example.federated_round_(own, clients, keep=2, steps=3, lr=0.5)
    # Batches as large as a client's data: each step is on all of its samples.
    task, data = SupervisedTask(model, F.cross_entropy), Datasets(clients, clients[0])
    with federated(task, data, batch_size=20, executor="serial") as federation:
        (record,) = federation.rounds(1)
        assert record.selection.names == names
        assert len(names) == 4, "two blocks of four, the input and the output"
        layout, params = federation.server.layout, federation.state.params
        torch.testing.assert_close(layout.flatten(own), params, rtol=1e-5, atol=1e-6)
    assert "best blocks of each group first" in capsys.readouterr().out


@pytest.mark.slow
def test_the_example_runs_as_a_script():
    done = subprocess.run(
        [sys.executable, "-P", str(EXAMPLES / "round.py")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].startswith("changed: 0 1.")


def test_a_federated_tagger_learns_on_ragged_data_and_goes_on_with_the_same_bits(tmp_path):
    """Imported under its own name: the run keeps the names of its parts, for workers and for resuming."""
    sys.path.insert(0, str(EXAMPLES))
    try:
        example, tagger = importlib.import_module("federate"), importlib.import_module("tagger")
        whole = example.federation(executor="serial").run(4)
        assert whole.metrics[-1]["test_accuracy"] > 0.5 > whole.metrics[0]["test_accuracy"]
        several = example.federation(executor="processes", workers=2).run(2, tmp_path / "out")
        assert several.metrics[1]["test_loss"] == whole.metrics[1]["test_loss"]
        resumed = example.federation(executor="serial").resume(tmp_path / "out", 4)
        assert torch.equal(resumed.params, whole.params)
        with pytest.raises(InputError, match="lstm"):
            example.federation(executor="vectorized").run(1)
        tagger.Sentences.__getitem__ = lambda own, index: (own.words[index], own.words[index] % 2)
        with pytest.raises(InputError, match="data"):
            example.federation(executor="serial").resume(tmp_path / "out", 5)
    finally:
        sys.path.remove(str(EXAMPLES))
        for name in ("federate", "tagger"):
            sys.modules.pop(name, None)
