"""Quality and agreement against lambda."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from support.client_arms import arm

from fedtlu_fast.report.aggregate.ablation import SweepArm, ablation_cells, ablation_rows, ablation_table
from fedtlu_fast.report.figures.ablation import GAP, ablation_figure
from fedtlu_fast.report.pages.clients import write_ablation
from fedtlu_fast.report.pages.parts import png
from fedtlu_fast.tasks.metrics import ACCURACY, PERPLEXITY

TOP = [[3, 4], [3, 4]]
APART = [[1, 4], [3, 4]]


def sweep() -> list[SweepArm]:
    return [
        SweepArm(
            "snr", "2", lam, arm(f"strategic-snr@2+lam={lam:g}", seed, choices, accuracy=accuracy + seed / 10)
        )
        for lam, choices, accuracy in (
            (0.1, [TOP, APART], 0.6),
            (0.0, [APART, APART], 0.5),
            (1.0, [TOP, TOP], 0.4),
        )
        for seed in (0, 1)
    ] + [SweepArm("rgn", "1..4", 0.1, arm("strategic-rgn@1..4", 0, [TOP], accuracy=0.7))]


def test_rows_are_means_over_seeds_in_the_order_of_lambda() -> None:
    rows = ablation_rows(sweep())
    assert [(row["metric"], row["budget"], row["lam"], row["seeds"]) for row in rows] == [
        ("snr", "2", 0.0, 2),
        ("snr", "2", 0.1, 2),
        ("snr", "2", 1.0, 2),
        ("rgn", "1..4", 0.1, 1),
    ]
    assert [row["test_accuracy"] for row in rows] == pytest.approx([0.55, 0.65, 0.45, 0.7])
    assert [row["agreement"] for row in rows] == [0, 0.5, 1, 1]
    assert rows[0]["agreement_std"] == 0
    assert rows[3]["test_accuracy_std"] is None
    heads, cells = ablation_cells(rows, ACCURACY)
    assert heads == ["metric", "budget", "lambda", "global acc, %", "agreement"]
    assert cells[1] == ["snr", "2", "0.1", "65.00 ± 7.07", "0.500 ± 0.000"]
    assert cells[3] == ["rgn", "1..4", "0.1", "70.00", "1.000"]
    assert ablation_table(rows, "Lambda", ACCURACY).row_count == 4


def test_perplexity_stands_in_where_there_is_no_accuracy_and_lone_clients_cannot_agree() -> None:
    alone = arm("strategic@1", 0, [[[3, 4]]], accuracy=None, test_perplexity=18.0)
    (row,) = ablation_rows([SweepArm("gradnorm", "1", 0.1, alone)])
    assert (row["test_perplexity"], row["agreement"]) == (18.0, None)
    assert ablation_cells([row], PERPLEXITY)[1] == [["gradnorm", "1", "0.1", "18.00", "-"]]
    assert png(lambda: ablation_figure([row], PERPLEXITY)).startswith(b"\x89PNG")


def test_the_axis_is_logarithmic_with_0_at_its_left() -> None:
    figure = ablation_figure(ablation_rows(sweep()), ACCURACY)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert png(lambda: figure).startswith(b"\x89PNG")
    (two, _), (agreed, _) = np.array(figure.axes).reshape(2, 2)
    assert [tick.get_text() for tick in agreed.get_xticklabels()] == ["0", "0.1", "1"]
    assert agreed.get_xticks().tolist() == pytest.approx([-1 - GAP, -1, 0])
    assert two.lines[0].get_ydata().tolist() == pytest.approx([55, 65, 45])
    assert agreed.lines[0].get_ydata().tolist() == [0, 0.5, 1]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["snr", "rgn"]


def test_files_are_written(tmp_path: Path) -> None:
    rows = write_ablation(sweep(), tmp_path)
    assert rows == ablation_rows(sweep())
    assert (tmp_path / "ablation.csv").read_text().startswith("metric,budget,lam,seeds,test_accuracy")
    assert (tmp_path / "ablation.md").read_text().count("\n") == 6
