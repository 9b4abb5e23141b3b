"""Tables and pictures of costs, from logs of two rounds and from a run."""

import json
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.console import Console
from support.federations import tiny

from fedtlu_fast import InputError, simulate
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.costs.blocks import BlockCosts
from fedtlu_fast.costs.rounds import RoundCosts, round_costs, samples_processed
from fedtlu_fast.report.aggregate.costs import RunCosts, cost_cells, cost_rows, cost_table, read_costs
from fedtlu_fast.report.figures.costs import costs_figure, ends_figure
from fedtlu_fast.report.pages.parts import png
from fedtlu_fast.report.tables import to_csv, to_markdown
from fedtlu_fast.tasks.metrics import ACCURACY

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


def a_run(seed: int, accuracy: float | None, *, probes: int = 0, tested: bool = True) -> RunCosts:
    rounds = [a_round([[True, True], [True, True]], probes), a_round([[False, True], [True, True]], probes)]
    metrics = [
        {"round": 1, "test_accuracy": None, "test_perplexity": None, "seconds": 1.5},
        {"round": 2, "test_accuracy": accuracy, "test_perplexity": None, "seconds": 2.5},
    ]
    if tested and accuracy is not None:
        metrics[0] = {**metrics[0], "test_accuracy": accuracy / 2}
    return RunCosts(seed, [costs.row() for costs in rounds], metrics)


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
        "global acc",
        "MB up",
        "MB down",
        "GFLOP forward",
        "GFLOP backward",
        "FLOP in probes",
        "seconds in rounds",
    ]
    assert cells[0][1:3] == ["60.00% ± 14.14", "0.00032"]
    assert cells[0][4:] == ["8.0", "13.0", "0.0%", "4.0 ± 0.0"]
    assert cells[1][4:7] == ["12.0", "21.0", "36.4%"]
    assert to_markdown(heads, cells).count("\n") == 4
    assert to_csv(rows).splitlines()[0].startswith("arm,seeds,test_accuracy,test_accuracy_std,bytes_up")
    assert cost_table(rows, "Costs").row_count == 2


def test_the_picture_has_a_line_for_each_arm_in_each_panel() -> None:
    arms = {"top": [a_run(0, 0.5), a_run(1, 0.7)], "own": [a_run(0, 0.8, probes=2)], "empty": []}
    figure = costs_figure({name: runs for name, runs in arms.items() if runs}, ACCURACY)
    assert isinstance(figure, Figure)
    assert png(lambda: figure).startswith(b"\x89PNG")
    left, right = figure.axes
    assert left.get_xlim()[1] >= 320e-6
    assert np.allclose(left.lines[0].get_xdata(), [200e-6, 320e-6])
    assert np.allclose(left.lines[0].get_ydata(), [30, 60])
    assert np.allclose(right.lines[0].get_xdata(), [12, 21])
    assert names_in(figure) == ["top", "own"]


def names_in(figure: Figure) -> list[str]:
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


BUDGETED = {
    "top@1": [a_run(0, 0.4)],
    "top@2": [a_run(0, 0.5), a_run(1, 0.7)],
    "own@1": [a_run(0, 0.8, probes=2)],
    "full": [a_run(0, 0.9)],
}


def test_the_picture_has_a_row_for_each_budget_with_the_arms_without_one_in_all() -> None:
    figure = costs_figure(BUDGETED, ACCURACY)
    assert png(lambda: figure).startswith(b"\x89PNG")
    panels = np.array(figure.axes).reshape(2, 2)
    assert [axes.get_title(loc="left") for axes in panels[:, 0]] == ["budget 1", "budget 2"]
    # A line and its dot for each arm.
    assert [len(axes.lines) // 2 for axes in panels[:, 0]] == [3, 2]
    assert all(axes.get_xlim()[1] >= 320e-6 for axes in panels[:, 0])
    assert names_in(figure) == ["top", "own", "full"]


def test_the_ends_are_joined_from_budget_to_budget() -> None:
    figure = ends_figure({**BUDGETED, "untested": [a_run(0, None)]}, ACCURACY)
    assert png(lambda: figure).startswith(b"\x89PNG")
    left, right = figure.axes
    joined = next(line for line in left.lines if len(line.get_xdata()) == 2)
    assert np.allclose(joined.get_xdata(), [320e-6, 320e-6])
    assert np.allclose(joined.get_ydata(), [40, 60])
    assert {line.get_marker() for line in right.lines} - {"None"} == {"o", "s"}
    assert right.get_xlim()[1] >= 33
    assert names_in(figure) == ["top", "own", "budget 1", "budget 2", "full"]


def test_the_table_of_many_arms_fits_a_terminal() -> None:
    name = "strategic-snr@1..4+lam=0.05"
    large = a_run(0, 0.5)
    huge = RunCosts(
        0,
        [
            {
                **row,
                "bytes_down": 25_000_000_000,
                "forward_flops": row["forward_flops"] + 4.2e15,
                "probe_flops": 4.2e15,
            }
            for row in large.rounds
        ],
        large.metrics,
    )
    rows = cost_rows({name: [huge, huge], "full": [large, large]})
    console = Console(width=110, record=True, file=StringIO())
    console.print(cost_table(rows, "Costs"))
    (line,) = [line for line in console.export_text().splitlines() if name in line]
    assert line.split()[1:] == [
        "50.00%",
        "±",
        "0.00",
        "0.00032",
        "50,000",
        "8,400,008",
        "13.0",
        "100.0%",
        "4.0",
        "±",
        "0.0",
    ]


def test_a_run_is_read_from_its_directory(text: Path, tmp_path: Path) -> None:
    config = tiny(text, rounds=3, warmup_rounds=1, evaluation={"flops": "always"})
    result = simulate(config, tmp_path / "server")
    (run,) = read_costs({"fedtlu": [tmp_path / "server"]})["fedtlu"]
    totals = run.totals()
    assert run.seed == config.seed
    assert totals["bytes_up"] == result.summary["bytes_up"]
    assert sum(row["bytes_published"] for row in run.rounds) == result.summary["bytes_published"]
    assert run.last("test_perplexity") == result.metrics[-1]["test_perplexity"]


@pytest.mark.parametrize("selector", ["gradnorm", "fedlp"])
def test_what_clients_probed_trained_and_sent_is_counted(text: Path, tmp_path: Path, selector: str) -> None:
    full = simulate(tiny(text, rounds=2, warmup_rounds=0, evaluation={"flops": "always"}), tmp_path / "full")
    chosen = {"selector": selector, **({"probe_batches": 2} if selector == "gradnorm" else {})}
    config = tiny(text, rounds=2, warmup_rounds=0, selection={"selector": "full"}, client_selection=chosen)
    result = simulate(config, tmp_path / "own")
    found = read_costs({"full": [tmp_path / "full"], "own": [tmp_path / "own"]})
    (whole,), (own,) = found["full"], found["own"]
    sent = sum(row["bytes_up"] - row["probe_bytes_up"] for row in own.rounds)
    assert sent == result.summary["bytes_up"] < full.summary["bytes_up"]
    if selector == "fedlp":
        assert own.totals()["backward_flops"] == whole.totals()["backward_flops"]
        assert own.totals()["probe_flops"] == 0
        return
    assert own.totals()["backward_flops"] - own.totals()["probe_flops"] < whole.totals()["backward_flops"]
    population = load_federation(config).population
    sizes = [len(population.train(client)) for client in range(config.clients)]
    passed = sum(min(sizes[client], 8) for row in result.selection for client in row["cohort"])
    through = [
        samples_processed(sizes[client], config.training.local) for client in full.selection[0]["cohort"]
    ]
    single = whole.rounds[0]["forward_flops"] / sum(through)
    forward = json.loads((tmp_path / "own" / "costs.json").read_text())["blocks"]["forward_flops"]
    assert single == forward
    backward = json.loads((tmp_path / "full" / "costs.json").read_text())["blocks"]
    every = sum(backward["weight_flops"]) + max(backward["reach_flops"])
    assert own.totals()["probe_flops"] == pytest.approx(passed * (single + every))


def test_only_finished_runs_that_measured_their_costs_have_some(text: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    config = tiny(text, rounds=1, warmup_rounds=0, evaluation={"flops": "always"})
    simulate(config, out)
    file, data = out / "costs.json", (out / "costs.json").read_bytes()
    file.write_bytes(data.replace(b"bytes_up", b"bytes_op"))
    with pytest.raises(InputError, match=r"its content does not match its digest\. Resume the run"):
        read_costs({"run": [out]})
    simulate(config, out, resume=True)
    assert file.read_bytes() == data
    file.unlink()
    with pytest.raises(InputError, match=r"or with evaluation\.flops=always"):
        read_costs({"run": [out]})
    (out / "metrics.jsonl").write_text("")
    with pytest.raises(InputError, match=r"metrics\.jsonl was changed after it was written"):
        read_costs({"run": [out]})
    (out / "summary.json").unlink()
    with pytest.raises(InputError, match="a finished run"):
        read_costs({"run": [out]})


def test_costs_are_measured_where_clients_choose_and_where_it_is_asked_for(
    text: Path, tmp_path: Path
) -> None:
    chosen = {"selector": "full"}, {"selector": "random", "budget": 1}
    for name, flops, clients, found in (
        ("a", "auto", False, False),
        ("b", "always", False, True),
        ("c", "auto", True, True),
        ("d", "never", True, False),
    ):
        over = {"selection": chosen[0], "client_selection": chosen[1]} if clients else {}
        simulate(tiny(text, rounds=1, warmup_rounds=0, evaluation={"flops": flops}, **over), tmp_path / name)
        assert (tmp_path / name / "costs.json").exists() == found


def test_a_model_that_cannot_be_measured_costs_that_file_and_one_line(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr("fedtlu_fast.simulation.costs.measure_costs", fail)
    simulate(tiny(text, rounds=1, warmup_rounds=0, evaluation={"flops": "always"}), tmp_path / "run")
    assert "costs.json could not be made, all else was: RuntimeError: no such operation" in caplog.text
    assert (tmp_path / "run" / "summary.json").exists()
    assert not (tmp_path / "run" / "costs.json").exists()
