import csv
import io
import math
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from support.federations import snapshot, tiny
from support.html_pages import read_page

from fedtlu_fast import StorageError, simulate
from fedtlu_fast.report.again import write_report
from fedtlu_fast.report.aggregate.comparison import comparison_cells, comparison_rows, comparison_table
from fedtlu_fast.report.columns import COLUMNS
from fedtlu_fast.report.figures.comparison import comparison_figure
from fedtlu_fast.report.figures.run import curves_figure, selection_figure
from fedtlu_fast.report.headline import headline_of
from fedtlu_fast.report.pages.comparison import write_comparison_report
from fedtlu_fast.report.pages.parts import png
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.report.tables import to_csv, to_markdown
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.shown import short_names

BLOCKS = [f"transformer.h.{index}" for index in range(4)]


def arm(
    selector: str, seed: int, perplexity: float | None = 100.0, rounds: int = 6, warmup: int = 2
) -> ArmResult:
    """An arm as its files would be read."""
    metrics, selection = [], []
    for index in range(1, rounds + 1):
        early = index <= warmup
        chosen = BLOCKS if early or selector == "full" else [BLOCKS[(index + seed) % 4]]
        value = None if perplexity is None else perplexity + 10 * (rounds - index)
        metrics.append(
            {
                "round": index,
                "warmup": early,
                "selected": [*chosen, "transformer.wte"],
                "test_perplexity": value,
                "local_perplexity": value if index % 3 == 0 else None,
            }
        )
        scores = {block: 10.0 ** -(3 + place) for place, block in enumerate(BLOCKS)}
        selection.append({**metrics[-1], "block_scores": {**scores, "transformer.wte": -1.0}})
    summary = {
        "selector": selector,
        "seed": seed,
        "rounds": rounds,
        "warmup_rounds": warmup,
        "groups": {"transformer.h.*": BLOCKS},
        "test_perplexity": perplexity,
        "local_perplexity": None if perplexity is None else perplexity + 5,
        "trained_local_perplexity": None,
        "updated_share": 0.5,
        "bytes_published": 12_345_678,
        "bytes_up": 3_000_000_000,
        "seconds": 10.0 + seed,
    }
    return ArmResult(selector, seed, summary, metrics, selection)


@pytest.fixture
def results() -> list[ArmResult]:
    # random: 100 and 110; fedtlu: 98 (2 % lower) and 99 (10 % lower)
    return [arm("fedtlu", 0, 98.0), arm("random", 0, 100.0), arm("fedtlu", 1, 99.0), arm("random", 1, 110.0)]


def test_rows_are_mean_and_sample_std_over_seeds(results: list[ArmResult]) -> None:
    fedtlu, random = comparison_rows(results)
    assert (fedtlu["selector"], fedtlu["seeds"]) == ("fedtlu", [0, 1])
    assert fedtlu["test_perplexity"] == 98.5
    assert fedtlu["test_perplexity_std"] == pytest.approx(math.sqrt(0.5))
    assert random["test_perplexity"] == 105.0
    assert random["test_perplexity_std"] == pytest.approx(math.sqrt(50))
    assert fedtlu["seconds"] == 10.5
    assert fedtlu["trained_local_perplexity"] is None
    assert fedtlu["trained_local_perplexity_std"] is None


def test_gain_is_taken_seed_by_seed(results: list[ArmResult]) -> None:
    fedtlu, random = comparison_rows(results)
    assert fedtlu["gain_over_random_pct"] == pytest.approx(6.0)
    assert fedtlu["gain_over_random_pct_std"] == pytest.approx(math.sqrt(32))
    assert random["gain_over_random_pct"] == 0
    assert comparison_rows([arm("fedtlu", 0)])[0]["gain_over_random_pct"] is None
    assert comparison_rows([arm("fedtlu", 0), arm("random", 1)])[0]["gain_over_random_pct"] is None


def test_one_seed_has_no_spread() -> None:
    (row,) = comparison_rows([arm("fedtlu", 0)])
    assert row["test_perplexity_std"] is None
    heads, ((selector, perplexity, *_),) = comparison_cells([row])
    assert heads[:2] == ["selector", "global ppl"]
    assert (selector, perplexity) == ("fedtlu", "100.00")


def test_arm_that_diverged_is_left_out_of_means_and_gains() -> None:
    found = [arm("fedtlu", 0, None), arm("random", 0, 100.0), arm("fedtlu", 1, 90.0), arm("random", 1, None)]
    fedtlu, random = comparison_rows(found)
    assert fedtlu["test_perplexity"] == 90.0
    assert random["test_perplexity"] == 100.0
    assert fedtlu["gain_over_random_pct"] is None
    assert "gain over random" not in comparison_cells([fedtlu])[0], "no arm has one"
    fedtlu["updated_share"] = None
    heads, (cells,) = comparison_cells([fedtlu])
    assert cells[heads.index("updated")] == "-"


def test_cells_have_units_that_people_read(results: list[ArmResult]) -> None:
    heads, cells = comparison_cells(comparison_rows(results))
    shown = dict(zip(heads, cells[0], strict=True))
    assert shown["global ppl"] == "98.50 ± 0.71"
    assert shown["updated"] == "50.0%"
    assert shown["MB published"] == "12.3"
    assert shown["MB up"] == "3,000"
    assert [COLUMNS["bytes_up"].cell(size) for size in (0, 47, 4.7e3, 96e3, 0.3e6)] == [
        *("0.0", "0.000047", "0.0047", "0.096", "0.3")
    ]
    assert shown["seconds in rounds"] == "10.5 ± 0.7"
    assert shown["gain over random"] == "+6.00% ± 5.66"
    assert dict(zip(heads, cells[1], strict=True))["gain over random"] == ""
    assert not {"malicious updates", "local ppl, trained", "epsilon"} & set(shown), "no arm has them"
    for result in results:
        result.summary.update({"malicious_updates": 7, "trained_local_perplexity": 80.0, "epsilon": 4.0})
    heads, cells = comparison_cells(comparison_rows(results))
    shown = dict(zip(heads, cells[0], strict=True))
    assert (shown["malicious updates"], shown["local ppl, trained"]) == ("7", "80.00 ± 0.00")
    assert shown["epsilon"] == "4.00"


def test_markdown_and_csv_can_be_read_back(results: list[ArmResult]) -> None:
    rows = comparison_rows(results)
    heads, cells = comparison_cells(rows)
    lines = to_markdown(heads, cells).splitlines()
    parsed = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert parsed[0] == heads
    assert set(parsed[1]) == {"---"}
    assert parsed[2:] == cells
    back = list(csv.DictReader(io.StringIO(to_csv(rows))))
    assert [row["selector"] for row in back] == ["fedtlu", "random"]
    assert float(back[0]["test_perplexity"]) == 98.5
    assert back[0]["seeds"] == "0 1"
    assert back[0]["trained_local_perplexity"] == ""
    assert comparison_table(rows, "t").row_count == 2


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of a PNG in pixels."""
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data[12:16] == b"IHDR"
    assert data.endswith(b"IEND\xaeB`\x82")
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def drawn(figure: Figure) -> tuple[int, int]:
    """The picture's size; a warning (clipped layout, no legend, one-point axes) is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return size_of(png(lambda: figure))


CASES = {
    "several seeds": [arm(name, seed) for seed in (0, 1) for name in ("fedtlu", "random", "last", "full")],
    "one seed": [arm(name, 0) for name in ("fedtlu", "random")],
    "no random": [arm("fedtlu", 0), arm("last", 0)],
    "only full": [arm("full", 0)],
    "all warm-up": [arm(name, 0, rounds=3, warmup=3) for name in ("fedtlu", "random")],
    "one round": [arm(name, 0, rounds=1, warmup=0) for name in ("fedtlu", "random")],
    "a diverged seed": [arm("fedtlu", 0), arm("fedtlu", 1, None), arm("random", 0), arm("random", 1)],
    "all diverged": [arm("fedtlu", 0, None), arm("random", 0, None)],
    "an unknown selector": [arm("gradient-norm", 0), arm("random", 0)],
}


@pytest.mark.sweep(quick=6)
@pytest.mark.parametrize("found", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("blocks", [BLOCKS, []], ids=["blocks", "no like blocks"])
def test_comparison_picture_can_always_be_drawn(found: list[ArmResult], blocks: list[str]) -> None:
    width, height = drawn(comparison_figure(found, blocks))
    assert 1000 <= width <= 2000
    assert 500 <= height <= 2000


def test_comparison_picture_shows_every_selector_and_its_gain(results: list[ArmResult]) -> None:
    curves, gains, *maps = comparison_figure(results, BLOCKS).axes
    legend = curves.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["fedtlu", "random"]
    assert [axes.get_title(loc="left") for axes in maps] == [
        "fedtlu: updated blocks",
        "random: updated blocks",
    ]
    assert [label.get_text() for label in maps[0].get_yticklabels()] == ["h.0", "h.1", "h.2", "h.3"]
    line = next(line for line in gains.lines if line.get_label() == "fedtlu")
    assert float(line.get_ydata()[-1]) == pytest.approx(6.0)  # type: ignore[arg-type, index]
    shares = maps[0].images[0].get_array()
    assert shares is not None
    # Rounds 3 to 6 of two seeds: each updated one block a round, never the same.
    assert shares.shape == (4, 4)
    assert set(shares.ravel().tolist()) == {0.0, 0.5}


def test_comparison_picture_has_the_sentence_above_it(results: list[ArmResult]) -> None:
    plain, told = (comparison_figure(results, BLOCKS, said) for said in ("", "said " * 60))
    assert plain.get_suptitle() == ""
    lines = told.get_suptitle().split("\n")
    assert " ".join(lines) == ("said " * 60).strip()
    assert 2 <= len(lines) <= 4
    assert drawn(told)[1] > drawn(plain)[1], "the sentence takes no room from the panels"


def test_titles_of_maps_have_two_lines_if_a_name_is_long() -> None:
    long = "fedtlu:signal+pooling=pooled"
    found = [arm(name, 0) for name in ("fedtlu", long, "random", "last")]
    figure = comparison_figure(found, BLOCKS)
    titles = [axes.get_title(loc="left") for axes in figure.axes[2:]]
    assert titles == [f"{name}:\nupdated blocks" for name in ("fedtlu", long, "random", "last")]
    drawn(figure)


@pytest.mark.sweep(quick=6)
@pytest.mark.parametrize(("rounds", "warmup"), [(1, 0), (1, 1), (3, 3), (6, 2), (200, 20)])
@pytest.mark.parametrize("unique", [[], ["transformer.wte"], [f"b.{index}" for index in range(90)]])
def test_pictures_of_a_run_can_always_be_drawn(rounds: int, warmup: int, unique: list[str]) -> None:
    result = arm("fedtlu", 0, rounds=rounds, warmup=warmup)
    assert drawn(curves_figure(result.metrics, "fedtlu", warmup))[0] == 1040
    for blocks in (BLOCKS, BLOCKS[:1], []):
        assert drawn(selection_figure(result.selection, blocks, warmup, unique))[0] == 1040
    drawn(curves_figure(arm("full", 0, None, rounds, warmup).metrics, "full", warmup))


def test_map_of_very_many_blocks_stays_a_picture() -> None:
    blocks = [f"h.{index}.attn.c_attn.weight" for index in range(300)]
    rows = [{"round": 1, "selected": blocks[:9], "block_scores": dict.fromkeys(blocks, 0.1)}]
    assert drawn(selection_figure(rows, blocks, 0, []))[1] < 2000


def test_a_score_that_was_no_number_is_drawn_as_none() -> None:
    scores: list[dict[str, float | None]] = [dict.fromkeys(BLOCKS, 0.1), dict.fromkeys(BLOCKS, None)]
    rows = [
        {"round": at, "selected": BLOCKS[:1], "block_scores": own} for at, own in enumerate(scores, start=1)
    ]
    figure = selection_figure(rows, BLOCKS, 0, [])
    drawn(figure)
    (image,) = figure.axes[0].get_images()
    shown = np.ma.filled(image.get_array(), np.nan)
    assert np.isnan(shown).tolist() == [[False, True]] * len(BLOCKS)
    assert "blue: no score" in figure.axes[0].get_xlabel()


def test_short_names_stay_different() -> None:
    assert short_names(["transformer.h.0", "transformer.h.1"]) == ["h.0", "h.1"]
    tensors = [f"transformer.h.{i}.{part}.weight" for i in (0, 1) for part in ("attn.c_attn", "mlp.c_fc")]
    assert short_names(tensors) == [name.removeprefix("transformer.") for name in tensors]
    assert short_names(["encoder.layer.0", "decoder.layer.0"]) == ["encoder.layer.0", "decoder.layer.0"]
    assert short_names(["a.b"]) == ["b"]
    assert short_names([]) == []


def pages(out: Path) -> str:
    """A page, which has nothing wrong."""
    return read_page((out / "report.html").read_text(encoding="utf-8")).text


def test_report_of_a_run_is_one_self_contained_page(text: Path, tmp_path: Path) -> None:
    config = tiny(text)
    result = simulate(config, tmp_path / "out")
    write_report(tmp_path / "out")
    page = pages(tmp_path / "out")
    assert result.summary["params_sha256"] in page
    assert "Federated run: fedtlu, seed 0" in page
    assert "warmup_rounds: 2" in page
    assert read_page(page).sections == [
        "Result",
        "Which blocks were updated when",
        "Who took part",
        "Costs",
        "Faults and warnings",
        "Environment",
        "How to repeat it",
    ]
    assert len(read_page(page).readings) == 4
    assert len(page) < 100_000
    for name in ("curves", "selection", "ranks"):
        assert size_of((tmp_path / "out" / "plots" / f"{name}.png").read_bytes())[0] == 1040


def test_page_of_a_private_run_says_that_its_figures_have_no_noise(text: Path, tmp_path: Path) -> None:
    pytest.importorskip("dp_accounting")
    config = tiny(text, privacy={"noise_multiplier": 1.0, "delta": 1e-3})
    simulate(config, tmp_path / "out")
    write_report(tmp_path / "out")
    assert "this page is not for publication" in pages(tmp_path / "out")
    simulate(tiny(text), tmp_path / "plain")
    write_report(tmp_path / "plain")
    assert "this page is not for publication" not in pages(tmp_path / "plain")


@pytest.mark.parametrize(
    "over", [{"selector": "full"}, {"granularity": "tensor"}, {"unique": "never"}], ids=str
)
def test_report_of_every_kind_of_run_can_be_written(text: Path, tmp_path: Path, over: dict[str, Any]) -> None:
    config = tiny(text, selection=over, rounds=3)
    result = simulate(config, tmp_path / "out")
    write_report(tmp_path / "out")
    assert result.summary["params_sha256"] in pages(tmp_path / "out")


def test_page_escapes_what_users_name(text: Path, tmp_path: Path) -> None:
    (tmp_path / "<script>alert(1)<").mkdir()
    file = tmp_path / "<script>alert(1)<" / "script>"
    file.write_bytes(text.read_bytes())
    config = tiny(file, rounds=1)
    simulate(config, tmp_path / "out")
    write_report(tmp_path / "out")
    assert "&lt;script&gt;alert(1)" in pages(tmp_path / "out")


def test_comparison_report_leaves_tables_picture_and_page(
    text: Path, tmp_path: Path, results: list[ArmResult]
) -> None:
    rows = write_comparison_report(results, RunSettings.of(tiny(text).to_yaml()), tmp_path)
    assert rows == comparison_rows(results)
    page = pages(tmp_path)
    assert "98.50 ± 0.71" in page
    assert "2 seeds" in page
    assert set(snapshot(tmp_path)) == {
        "comparison.json",
        "plots/comparison.png",
        "report.html",
        "table.csv",
        "table.md",
    }


def test_report_that_cannot_be_written_is_a_storage_error(
    text: Path, tmp_path: Path, results: list[ArmResult]
) -> None:
    (tmp_path / "plots").write_text("a file where the folder has to be")
    with pytest.raises(StorageError, match="plots could not be written"):
        write_comparison_report(results, RunSettings.of(tiny(text).to_yaml()), tmp_path)


def test_accuracies_have_columns_only_where_there_are_some(results: list[ArmResult]) -> None:
    heads, _ = comparison_cells(comparison_rows(results))
    assert not any("acc" in head or "F1" in head for head in heads)
    for place, result in enumerate(results[:3]):
        result.summary.update(test_accuracy=0.5 + place / 10, local_accuracy=None, test_macro_f1=0.25)
    rows = comparison_rows(results)
    heads, cells = comparison_cells(rows)
    assert [head for head in heads if "acc" in head or "F1" in head] == ["global acc", "mean F1"]
    fedtlu, random = (dict(zip(heads, line, strict=True)) for line in cells)
    assert fedtlu["global acc"] == "60.00% ± 14.14"
    assert random["global acc"] == "60.00%", "of the one seed that has it"
    assert fedtlu["mean F1"].startswith("0.250")
    assert "test_accuracy" in to_csv(rows).splitlines()[0]


ROUGE = {"better": "higher", "title": "ROUGE", "percent": False}
ERROR = {"better": "lower", "title": "mean error", "percent": True}


def own(result: ArmResult, name: str, value: float, **figures: dict[str, Any]) -> ArmResult:
    """The same run of a task that has other figures than perplexity."""
    for row in result.metrics:
        row |= {"test_perplexity": None, "local_perplexity": None}
        row |= {f"test_{name}": value * row["round"] / 6, f"local_{name}": None}
    none = {"test_perplexity": None, "local_perplexity": None, f"local_{name}": 0.25}
    result.summary.update(none | {"headline": name, "figures": figures, f"test_{name}": value})
    return result


def test_runs_are_compared_by_the_headline_of_their_task() -> None:
    figures = {"rouge": ROUGE, "loss": {"better": "lower", "title": "loss", "percent": False}}
    found = [
        own(arm("fedtlu", 0), "rouge", 0.6, **figures),
        own(arm("random", 0), "rouge", 0.5, **figures),
    ]
    fedtlu, random = comparison_rows(found)
    assert (fedtlu["test_rouge"], fedtlu["local_rouge"]) == (0.6, 0.25)
    assert fedtlu["gain_over_random_pct"] == pytest.approx(20.0), "higher is better"
    heads, cells = comparison_cells([fedtlu, random])
    assert heads[1:3] == ["global rouge", "local rouge"]
    assert not any("ppl" in head for head in heads)
    assert cells[0][1] == "0.6"
    curves, gains, *_ = comparison_figure(found, BLOCKS).axes
    assert curves.get_ylabel() == "test ROUGE (higher is better)"
    assert curves.lines[0].get_ydata()[-1] == pytest.approx(0.6)
    assert gains.get_ylabel() == "higher ROUGE than random, %"
    line = next(line for line in gains.lines if line.get_label() == "fedtlu")
    assert line.get_ydata()[-1] == pytest.approx(20.0)


def test_lower_may_be_better_and_shares_are_shown_in_per_cent() -> None:
    ends = {"fedtlu": 0.4, "random": 0.5}
    found = [own(arm(name, 0), "error", value, error=ERROR) for name, value in ends.items()]
    assert comparison_rows(found)[0]["gain_over_random_pct"] == pytest.approx(20.0)
    figure = curves_figure(found[0].metrics, "fedtlu", 2, headline_of(found[0].summary))
    (axes,) = figure.axes
    assert axes.get_ylabel() == "test mean error (lower is better)"
    assert axes.lines[0].get_ydata()[-1] == pytest.approx(40.0)
    drawn(figure)


def test_gains_of_a_headline_in_per_cent_are_shown_in_points() -> None:
    accuracy = {"accuracy": {"better": "higher", "title": "accuracy", "percent": True}}
    ends = {"full": (0.4567, 0.1), "random": (0.3918, 0.0)}
    found = [
        own(arm(name, seed), "accuracy", value, **accuracy)
        for name, values in ends.items()
        for seed, value in enumerate(values)
    ]
    rows = comparison_rows(found)
    assert rows[0]["gain_over_random_points"] == pytest.approx((6.49 + 10) / 2)
    heads, cells = comparison_cells(rows)
    assert "gain over random" not in heads, "per cent of random's accuracy would be read as points"
    place = heads.index("gain over random, points")
    assert (cells[0][place], cells[1][place]) == ("+8.25 ± 2.48", "")
    assert rows[0]["gain_over_random_pct"] == pytest.approx(100 * 0.0649 / 0.3918), "table.csv keeps it"


def test_a_random_arm_that_records_more_is_the_baseline_if_there_is_no_other() -> None:
    recorded = "random+evaluation.benefit=true"
    rows = comparison_rows([arm("fedtlu", 0, 90.0), arm(recorded, 0, 100.0)])
    assert rows[0]["gain_over_random_pct"] == pytest.approx(10.0)
    heads, cells = comparison_cells(rows)
    assert cells[1][heads.index("gain over random")] == "", "it is the baseline"


def test_a_task_may_have_its_loss_alone() -> None:
    loss = {"better": "lower", "title": "loss", "percent": False}
    ends = {"fedtlu": 1.5, "random": 2.0}
    found = [own(arm(name, 0), "loss", value, loss=loss) for name, value in ends.items()]
    rows = comparison_rows(found)
    assert [row["test_loss"] for row in rows] == [1.5, 2.0]
    assert rows[0]["gain_over_random_pct"] == pytest.approx(25.0)
    drawn(comparison_figure(found, BLOCKS))


def test_runs_of_earlier_versions_name_no_headline() -> None:
    assert headline_of({"test_accuracy": 0.5, "test_perplexity": 3.0}).name == "accuracy"
    assert headline_of({"test_accuracy": None, "test_perplexity": 3.0}).name == "perplexity"
    assert headline_of({"test_perplexity": 3.0}).name == "perplexity"


def test_curves_without_local_tests_have_no_line_for_them() -> None:
    rows = [{"round": at, "test_perplexity": 9.0 - at, "local_perplexity": None} for at in range(1, 4)]
    axes = curves_figure(rows, "fedtlu", 0).axes[0]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["global test"]
