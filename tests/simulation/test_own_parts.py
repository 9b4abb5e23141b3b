"""Runs with parts of the user's own: every executor, resume, comparisons, the command line."""

import json
import subprocess
import sys

import pytest
from support.federations import left, tiny, tree, write_text
from support.own_parts import Cautious

from fedtlu_fast import InputError, simulate
from fedtlu_fast.experiments.compare import compare

CAUTIOUS = {"rule": "support.own_parts:Cautious", "floor": 0.25}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text") / "text.txt")


def test_the_executors_give_the_same_bits(text):
    found = [
        simulate(tiny(text, aggregation=CAUTIOUS, execution={"executor": executor, "workers": workers}))
        for executor, workers in (("serial", None), ("processes", 1), ("processes", 2))
    ]
    assert len({result.summary["params_sha256"] for result in found}) == 1
    by_object = simulate(tree(text, aggregation={"rule": Cautious(0.25)}))
    assert by_object.summary["params_sha256"] == found[0].summary["params_sha256"]
    assert by_object.summary["params_sha256"] != simulate(tiny(text)).summary["params_sha256"]


def test_a_run_goes_on_with_the_same_code_alone(text, tmp_path, monkeypatch):
    config = tiny(text, aggregation=CAUTIOUS)
    whole = simulate(config, tmp_path / "whole")

    def stop_at_three(row):
        if row["round"] == 3:
            raise KeyboardInterrupt

    with pytest.raises(Exception, match="you can resume it with"):
        simulate(config, tmp_path / "cut", callbacks=[stop_at_three])
    state = json.loads(next((tmp_path / "cut" / "checkpoints").glob("*/state.json")).read_text())
    assert "code of Cautious" in json.dumps(state)
    with monkeypatch.context() as changed:
        changed.setattr("fedtlu_fast.own_code._source", lambda thing: "other code")
        with pytest.raises(InputError, match=r"code of Cautious; they have changed"):
            simulate(config, tmp_path / "cut", resume=True)
    resumed = simulate(config, tmp_path / "cut", resume=True)
    assert resumed.summary["params_sha256"] == whole.summary["params_sha256"]
    assert left(tmp_path / "cut") == left(tmp_path / "whole")


@pytest.mark.slow
def test_arms_in_processes_of_their_own_import_the_part(text, tmp_path):
    config = tiny(text, aggregation=CAUTIOUS, rounds=3)
    found = compare(config, ["fedtlu", "random"], seeds=[0], out=tmp_path / "both", jobs=2)
    alone = simulate(config)
    by_name = {arm.selector: arm.summary["params_sha256"] for arm in found}
    assert by_name["fedtlu"] == alone.summary["params_sha256"]


RULE = """
from dataclasses import dataclass

from fedtlu_fast.aggregation import Aggregated, Median


@dataclass(frozen=True)
class Halved(Median):
    part: float = 0.5

    def finish(self, state):
        return Aggregated(self.part * super().finish(state).change)
"""


@pytest.mark.slow
def test_the_command_line_finds_a_part_in_the_current_directory(text, tmp_path):
    (tmp_path / "my_rules.py").write_text(RULE, encoding="utf-8")
    (tmp_path / "mine.yaml").write_text(tiny(text, rounds=3).to_yaml(), encoding="utf-8")
    own = ["--set", "aggregation.rule=my_rules:Halved", "--set", "aggregation.part=0.25", "--quiet"]

    def fedtlu(*command):
        code = "from fedtlu_fast.cli.main import main; main()"
        call = [sys.executable, "-c", code, *command]
        return subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = fedtlu("run", "--config", "mine.yaml", *own, "--out", "one")
    assert done.returncode == 0, done.stderr
    alone = json.loads((tmp_path / "one" / "summary.json").read_text())
    assert (tmp_path / "one" / "report.html").exists()
    arms = ["--selectors", "fedtlu,random", "--seeds", "1"]
    both = fedtlu("compare", "--config", "mine.yaml", *own, *arms, "--out", "two")
    assert both.returncode == 0, both.stderr
    arm = json.loads(next((tmp_path / "two").glob("*fedtlu*/summary.json")).read_text())
    assert arm["params_sha256"] == alone["params_sha256"]
    wrong = fedtlu("run", "--config", "mine.yaml", "--set", "aggregation.rule=my_rules:Havled")
    assert wrong.returncode == 2
    assert "has no attribute 'Havled'" in wrong.stderr
