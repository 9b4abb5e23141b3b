"""Tables and pictures of costs, from logs of two rounds and from a run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from federations import tiny
from matplotlib.figure import Figure

from fedtlu_fast import InputError, simulate
from fedtlu_fast.costs import BlockCosts, RoundCosts, round_costs
from fedtlu_fast.report.costs import RunCosts, cost_cells, cost_rows, cost_table, read_costs
from fedtlu_fast.report.costs_plot import costs_figure
from fedtlu_fast.report.plots import png
from fedtlu_fast.report.tables import to_csv_rows, to_markdown

COSTS = BlockCosts(
    names=("body", "head"),
    parameters=np.array([20, 5]),
    buffers=0,
    forward=1e9,
    weight=np.array([1e9, 5e8]),
    reach=np.array([5e8, 0.0]),
)


def a_round(masks: list[list[bool]], probes: int = 0) -> RoundCosts:
    return round_costs(COSTS, np.array(masks), [2] * len(masks), [1] * probes)


def a_run(seed: int, accuracy: float, *, probes: int = 0, tested: bool = True) -> RunCosts:
    rounds = [a_round([[True, True], [True, True]], probes), a_round([[False, True], [True, True]], probes)]
    metrics = [
        {"round": 1, "test_accuracy": None, "test_perplexity": None, "seconds": 1.5},
        {"round": 2, "test_accuracy": accuracy, "test_perplexity": None, "seconds": 2.5},
    ]
    if tested:
        metrics[0] = {**metrics[0], "test_accuracy": accuracy / 2}
    return RunCosts(seed, rounds, metrics)


def test_totals_by_hand() -> None:
    run = a_run(0, 0.5, probes=2)
    # Training: 2 clients x 2 samples x 2e9 twice, but for one client's 2 samples with the head alone.
    training, lighter, probes = 8 * 2e9, 2 * 1.5e9, 4 * 2e9
    totals = run.totals()
    assert totals["backward_flops"] == training - lighter + probes
    assert totals["forward_flops"] == 8 * 1e9 + 4 * 1e9
    assert totals["probe_flops"] == 4 * 3e9
    assert totals["probe_share"] == pytest.approx(12 / (12 + 21))
    assert totals["bytes_up"] == 4 * (25 * 3 + 5) + 2 * 2 * 2 * 4
    assert totals["bytes_down"] == 4 * 25 * 4
    assert totals["seconds"] == 4.0


def test_the_path_is_cumulative_and_only_of_rounds_with_a_test() -> None:
    assert a_run(0, 0.5).path("test_accuracy", "bytes_up") == [(1, 200, 0.25), (2, 320, 0.5)]
    assert a_run(0, 0.5, tested=False).path("test_accuracy", "flops") == [(2, 21e9, 0.5)]


def test_the_table_has_mean_and_spread_and_only_the_qualities_there_are(capsys: Any) -> None:
    rows = cost_rows({"top": [a_run(0, 0.5), a_run(1, 0.7)], "probing": [a_run(0, 0.8, probes=2)]})
    assert "test_perplexity" not in rows[0]
    assert rows[0]["test_accuracy"] == pytest.approx(0.6)
    heads, cells = cost_cells(rows)
    assert heads == [
        "arm",
        "accuracy",
        "MB up",
        "MB down",
        "GFLOP forward",
        "GFLOP backward",
        "FLOP in probes",
        "seconds",
    ]
    assert cells[0][1:3] == ["60.00% ± 14.14", "0.0"]
    assert cells[0][4:] == ["8.0", "13.0", "0.0%", "4.0 ± 0.0"]
    assert cells[1][4:7] == ["12.0", "21.0", "36.4%"]
    assert to_markdown(heads, cells).count("\n") == 4
    assert to_csv_rows(rows).splitlines()[0].startswith("arm,seeds,test_accuracy,test_accuracy_std,bytes_up")
    assert cost_table(rows, "Costs").row_count == 2


def test_the_picture_has_a_line_for_each_arm_in_each_panel() -> None:
    arms = {"top": [a_run(0, 0.5), a_run(1, 0.7)], "own": [a_run(0, 0.8, probes=2)], "empty": []}
    figure = costs_figure({name: runs for name, runs in arms.items() if runs}, "test_accuracy")
    assert isinstance(figure, Figure)
    assert png(figure).startswith(b"\x89PNG")
    left, right = figure.axes
    assert np.allclose(left.lines[0].get_xdata(), [200e-6, 320e-6])
    assert np.allclose(left.lines[0].get_ydata(), [30, 60])
    assert np.allclose(right.lines[0].get_xdata(), [12, 21])
    assert [line.get_text() for line in left.get_legend().get_texts()] == ["top", "own"]


def test_a_run_is_read_from_its_directory(text: Path, tmp_path: Path) -> None:
    config = tiny(text, rounds=3, warmup_rounds=1)
    result = simulate(config, tmp_path / "server")
    (run,) = read_costs({"fedtlu": [tmp_path / "server"]})["fedtlu"]
    totals = run.totals()
    assert run.seed == config.seed
    assert totals["bytes_up"] == result.summary["bytes_up"]
    assert sum(costs.bytes_published for costs in run.rounds) == result.summary["bytes_published"]
    assert run.last("test_perplexity") == result.metrics[-1]["test_perplexity"]
    # The same run with clients that train the last block alone, in logs written by hand.
    blocks = [len(result.layout.blocks) - 1]
    chosen = tmp_path / "client"
    chosen.mkdir()
    (chosen / "config.yaml").write_text((tmp_path / "server" / "config.yaml").read_text())
    (chosen / "metrics.jsonl").write_text((tmp_path / "server" / "metrics.jsonl").read_text())
    with (chosen / "selection.jsonl").open("w") as log:
        for row in result.selection[:2]:
            more = {"client_blocks": [blocks] * len(row["cohort"]), "probed": len(row["cohort"])}
            log.write(json.dumps({**row, **more}) + "\n")
    with pytest.raises(InputError, match="probe_samples"):
        read_costs({"own": [chosen]})
    (own,) = read_costs({"own": [chosen]}, probe_samples=4)["own"]
    assert len(own.rounds) == 2
    share = result.layout.block_sizes()[-1] / result.layout.size
    sent = sum(costs.bytes_up.sum() for costs in own.rounds)
    assert sent == pytest.approx(2 / 3 * totals["bytes_up"] * share)
    assert own.totals()["probe_share"] > 0.5
    assert own.rounds[0].backward.sum() < run.rounds[0].backward.sum() / 2


def test_another_models_log_and_no_rounds_are_refused(text: Path, tmp_path: Path) -> None:
    simulate(tiny(text, rounds=1, warmup_rounds=0), tmp_path / "run")
    settings = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    settings["model"]["layers"] = 2
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(InputError, match="blocks of this model"):
        read_costs({"run": [tmp_path / "run"]})
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match="one round or more"):
        read_costs({"run": [tmp_path / "run"]})
