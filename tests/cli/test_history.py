import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.federations import tiny

from fedtlu_fast import simulate

Command = Callable[..., Any]


@pytest.mark.draws
def test_history_prints_tables_json_and_a_picture(fedtlu: Command, text: Path, tmp_path: Path) -> None:
    simulate(tiny(text, rounds=5, warmup_rounds=2, selection={"pooling": "pooled"}), tmp_path / "run")
    done = fedtlu("history", tmp_path / "run", "--plot", tmp_path / "ranks.png")
    assert (done.code, done.stderr) == (0, "")
    for words in (
        "fedtlu, excess (pooled), 3 targeted rounds",
        "Kendall's",
        "norm weight",
        "the shares describe the mean",
    ):
        assert words in done.stdout
    assert (tmp_path / "ranks.png").read_bytes()[:4] == b"\x89PNG"
    told = json.loads(fedtlu("history", tmp_path / "run", "--json").stdout)
    assert [row["lag"] for row in told["stability"]] == [1, 2]


def test_history_says_what_cannot_be_compared(fedtlu: Command, text: Path, tmp_path: Path) -> None:
    simulate(tiny(text, rounds=1, warmup_rounds=0, selection={"granularity": "tensor"}), tmp_path / "run")
    done = fedtlu("history", tmp_path / "run")
    assert done.code == 0
    assert re.fullmatch(
        r"Selection decides over \d+% of the model's parameters \(groups .* do not count\)\.\n", done.stdout
    )
    assert "only one targeted round" in done.stderr
    assert "All layers are of one kind" in done.stderr
    missing = fedtlu("history", tmp_path / "gone")
    assert (missing.code, missing.stdout) == (2, "")
    assert "error: RUN_DIR" in missing.stderr
    nowhere = fedtlu("history", tmp_path / "run", "--plot", tmp_path / "no" / "p.png")
    assert nowhere.code == 2
    assert "--plot" in nowhere.stderr
