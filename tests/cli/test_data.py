"""Tests ``fedtlu data``."""

import json
from pathlib import Path

import pytest

OPTIONS = ("--set", "window=8", "--set", "vocabulary=40", "--set", "cohort=2", "--clients", "5")


def test_data_tells_who_holds_what_as_a_table_and_as_json(fedtlu, text):
    done = fedtlu("data", "--data", f"text:{text}", *OPTIONS)
    assert (done.code, done.stderr) == (0, "")
    assert "5 clients of text:" in done.stdout
    for words in ("samples", "to train on", "own test", "values of source", "effective number", "distance"):
        assert words in done.stdout
    found = json.loads(fedtlu("data", "--data", f"text:{text}", *OPTIONS, "--json").stdout)
    assert (found["clients"], found["looked_at"], found["left_over"]) == (5, 5, 0)
    assert found["samples"]["mean"] == pytest.approx(found["train"]["mean"] + found["own_test"]["mean"])
    assert 0 < found["attributes"]["source"]["distance"]["mean"] < 1
    near = json.loads(
        fedtlu("data", "--data", f"text:{text}", *OPTIONS, "--partition", "iid", "--json").stdout
    )
    distance = near["attributes"]["source"]["distance"]["mean"]
    assert distance < found["attributes"]["source"]["distance"]["mean"]


@pytest.mark.draws
def test_data_draws_a_picture_and_counts_samples_of_no_client(fedtlu, text, tmp_path: Path):
    plot = tmp_path / "who.png"
    done = fedtlu("data", "--data", f"text:{text}", *OPTIONS, "--partition", "shard:3", "--plot", plot)
    assert done.code == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "samples are held by no client" in " ".join(done.stdout.split())


def test_data_of_clients_by_rule(fedtlu):
    done = fedtlu("data", "--data", "synthetic", "--task", "classification", "--clients", "20000")
    assert done.code == 0
    assert "10,000 of 20,000 clients of synthetic" in done.stdout
    assert "values of label, of 10" in done.stdout


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--partition", "shards"), "partition.name"),
        (("--partition", "iid", "--set", "alpha=0.5"), "partition.alpha"),
        (("--partition", "natural", "--set", "partition.by=genre"), "one of source"),
        (("--clients", "100000"), "Use fewer clients"),
        (("--plot", "no/such/folder/who.png"), "--plot"),
        (("--partition", "pathological:80"), "at most 79, the values of source"),
    ],
)
def test_what_cannot_be_is_one_message(fedtlu, options, words):
    done = fedtlu("data", *options)
    assert done.code == 2
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr


def test_a_task_that_is_called_as_a_preset_brings_it(fedtlu):
    found = json.loads(fedtlu("data", "--task", "digits", "--json").stdout)
    assert (found["clients"], found["partition_by"]) == (100, "label")
    assert found["left_over"] == 0
    # 1,797 digits, of which the preset keeps a fifth for the test.
    assert found["samples"]["mean"] == pytest.approx(14.38)
    done = fedtlu("data", "--task", "digits", "--preset", "quickstart", "--data", "pydoc")
    assert done.code == 2
    assert "expected digits with task=digits" in done.stderr


def test_a_few_clients_are_dealt_to_whatever_the_cohort(fedtlu) -> None:
    done = fedtlu("data", "--task", "digits", "--clients", 4, "--json")
    assert done.code == 0, done.stderr
    assert json.loads(done.stdout)["clients"] == 4
