"""Pages: well-formed, alone, escaped, and complete."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.client_arms import arm as client_arm
from support.federations import tiny
from support.html_pages import HtmlPage, read_page

from fedtlu_fast.report.charts.lines import Axes, Series, line_chart
from fedtlu_fast.report.figures.style import Style
from fedtlu_fast.report.pages.arms import ArmsReport, arms_page
from fedtlu_fast.report.pages.content import Charts, Command, Facts, Links, Notes, Page, Section, Sheet
from fedtlu_fast.report.pages.experiment import gain_charts
from fedtlu_fast.report.pages.page import page_text, write_page
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.report.sections.environment import environment_section
from fedtlu_fast.report.sections.faults import NONE, faults_section
from fedtlu_fast.report.sections.repeat import IN_PYTHON, IN_SCRIPT, repeat_comparison, repeat_run
from fedtlu_fast.report.sections.took_part import took_part_section
from fedtlu_fast.report.sections.updated import scores_map, updated_maps
from fedtlu_fast.runs.results import ArmResult

NAMES = [
    '<script>alert("x")</script>',
    "</script><script>alert(1)</script>",
    "\" onmouseover='alert(1)' x=\"",
    "</style><b>{{ 7 * 7 }}",
    "<!-- & ]]>",
    "\x1b[31m",
    "a\u202eb",
    "\ud800",
    "a\nb",
]


def page_of(name: str) -> Page:
    """A page with a name in every place."""
    series = Series(name, Style("#D55E00", "--"), np.array([[1.0, 2.0]]))
    chart = line_chart(name, [1, 2], [series, series], Axes(mark=(1.5, name), names=[name, name]), note=name)
    assert chart is not None
    parts = [
        Sheet(name, [name, ""], [[name, name]], name),
        Sheet(name, [name], [[name]], folded=True),
        Facts([(name, name)]),
        Charts([chart]),
        Command(name, name),
        Notes([name], warning=True),
        Links([(name, "fedavg-clean/report.html")]),
    ]
    return Page(name, name, name, name, [Section("one", name, parts, name), Section("none", "Left out", [])])


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_act_on_nothing_wherever_they_stand(name: str, tmp_path: Path) -> None:
    page = read_page(write_page(tmp_path, page_of(name)).read_text(encoding="utf-8"))
    assert not {"b", "marquee"} & {tag for tag, _ in page.tags}
    assert "49" not in re.sub(r"<(style|script|svg).*?</\1>", "", page.text, flags=re.S)
    assert "Left out" not in page.sections
    shown = json.dumps(page.readings)
    assert "alert" not in name or "alert" in shown, "shown, but as text"


def test_the_reader_of_pages_finds_what_is_wrong() -> None:
    good = page_text(page_of("x"))
    assert HtmlPage(good).wrong == []
    for before, after in [
        ("</main>", "</main></div>"),
        ('<th scope="col">x', "<th>x"),
        ("<main", '<img src="https://example.org/x.png"><main'),
        ("<main", "<script>alert(1)</script><main"),
        ('<h2 id="one"', '<h4>x</h4><h2 id="one"'),
        ("<style>", "<style>@import 'x';"),
        ('href="#one"', 'href="#two"'),
        ("<h1>", '<h1 onclick="x()">'),
        ("</table>", ""),
    ]:
        assert HtmlPage(good.replace(before, after, 1)).wrong, after


def arm(selector: str, seed: int, rounds: int = 6, blocks: int = 4, **over: Any) -> ArmResult:
    names = [f"h.{at}" for at in range(blocks)]
    draws = np.random.default_rng([seed, len(selector)])
    metrics: list[dict[str, Any]] = []
    selection: list[dict[str, Any]] = []
    for at in range(1, rounds + 1):
        early = at <= 2
        row = {"round": at, "warmup": early, "test_perplexity": 100 / at + float(draws.random())}
        row |= {"local_perplexity": None, "refused": [], "failed": {}, "dropped": {}, "failed_tests": {}}
        chosen = names if early else [names[int(draws.integers(blocks))]]
        metrics.append({**row, "nonfinite_blocks": []})
        scores = {name: float(draws.random()) for name in names}
        cohort = [int(client) for client in draws.choice(4, 2, replace=False)]
        choice = {"drawn": cohort, "cohort": cohort, "selected": chosen, "block_scores": scores}
        selection.append({"round": at, "warmup": early, **choice})
    summary = {
        "selector": selector,
        "seed": seed,
        "rounds": rounds,
        "warmup_rounds": 2,
        "targeted_rounds": rounds - 2,
        "groups": {"h.*": names},
        "test_perplexity": metrics[-1]["test_perplexity"],
        "updated_share": 0.5,
        "bytes_up": 1000,
        "bytes_published": 100,
        "seconds": 1.0,
        "environment": {"torch": "2.13.0"},
        "data_sha256": "ab",
        **over,
    }
    timings = [{"round": at, "train": 0.1, "score": 0.01} for at in range(1, rounds + 1)]
    return ArmResult(selector, seed, summary, metrics, selection, timings)


def comparison(results: list[ArmResult], out: Path = Path("runs/x y")) -> HtmlPage:
    settings = RunSettings.of(tiny(Path("unused")).to_yaml())
    table = Sheet("Comparison", ["selector"], [[result.selector] for result in results])
    return read_page(page_text(arms_page(ArmsReport("T", results, table, settings, out))))


def test_a_page_of_150_rounds_stays_small(caplog: pytest.LogCaptureFixture) -> None:
    names = ("fedtlu", "random", "last", "full", "top")
    page = comparison([arm(name, seed, rounds=150, blocks=24) for name in names for seed in range(5)])
    assert not caplog.records
    assert len(page.text) < 1_000_000
    assert len(page.readings) >= 8


def test_a_comparison_has_every_section_and_a_command_that_repeats_it() -> None:
    page = comparison([arm("fedtlu", 0), arm("random", 0), arm("fedtlu", 1), arm("random", 1)])
    assert page.sections == [
        "Result",
        "Which blocks were updated when",
        "Who took part",
        "Costs",
        "Faults and warnings",
        "Environment",
        "How to repeat it",
    ]
    code = "".join(page.texts["code"])
    assert (
        "fedtlu compare --config 'runs/x y/config.yaml' \\\n  --selectors fedtlu,random --seed 0 --seeds 2"
        in code
    )
    assert "warmup_rounds: 2" in code


def test_arms_of_all_kinds_have_a_page(caplog: pytest.LogCaptureFixture) -> None:
    reference = ArmResult(
        "zero_shot", 0, {"test_perplexity": 9.0, "seed": 0, "rounds": 0, "warmup_rounds": 0}, [], []
    )
    assert "zero_shot" in comparison([arm("fedtlu", 0), reference]).texts["th"]
    comparison([reference])
    comparison(
        [client_arm("own@1", 0, [[[3], [3]], [[1], [3]]]), client_arm("random@1", 0, [[[3], [1]]] * 2)]
    )
    assert [record.getMessage() for record in caplog.records] == []


def test_faults_are_counted_and_their_reasons_told() -> None:
    good, bad = (
        arm("a", 0),
        arm("b", 0, refused_updates=2, failed_clients=1, diverged_round=5, stopped="patience"),
    )
    bad.metrics[0]["failed"] = {"3": "ValueError: <b>"}
    bad.timings[1].pop("train")  # type: ignore[index]
    bad.timings[1].pop("score")  # type: ignore[index]
    warnings, counts, reasons = faults_section([good, bad]).parts
    assert isinstance(warnings, Notes)
    assert [line.partition(":")[0] for line in warnings.lines] == ["b, seed 0"] * 3
    assert isinstance(counts, Sheet)
    assert counts.heads == ["run", "updates refused", "clients that failed"]
    assert counts.cells == [["a, seed 0", "0", "0"], ["b, seed 0", "2", "1"]]
    assert isinstance(reasons, Sheet)
    assert reasons.cells == [["failed: ValueError: <b>", "1"]]
    (none,) = faults_section([good]).parts
    assert isinstance(none, Notes)
    assert none.lines == [NONE]


def test_environments_that_differ_are_named() -> None:
    one, two = arm("a", 0), arm("b", 0, environment={"torch": "2.12.0"})
    warning, table = environment_section([one, two]).parts
    assert isinstance(warning, Notes)
    assert "torch" in warning.lines[0]
    assert isinstance(table, Sheet)
    assert table.cells[0] == ["torch", "2.13.0 | 2.12.0"]
    assert environment_section([arm("a", 0, environment={})]).parts == []


def test_each_client_s_rounds_are_told() -> None:
    run, settings = arm("a", 0, rounds=3), RunSettings.of(tiny(Path("unused")).to_yaml())
    run.selection[0] |= {"drawn": [0, 1, 2], "cohort": [0, 1]}
    run.metrics[0] |= {"refused": [0], "dropped": {"2": "no answer"}}
    section = took_part_section(run, settings, Path("runs/x"))
    charts, counts, command = section.parts
    assert isinstance(charts, Charts)
    readings = charts.charts[0].readings
    first = [readings["words"][at] for at in readings["text"][0]]
    assert [word.partition(":")[0] for word in first] == ["refused", "trained", "absent", "not drawn"]
    assert isinstance(counts, Sheet)
    assert sum(int(line[1]) for line in counts.cells) == 4
    assert isinstance(command, Command)
    assert command.text == "fedtlu data --config runs/x/config.yaml --plot data.png"


def test_runs_of_python_code_are_repeated_by_python_code() -> None:
    settings = RunSettings.of("seed: 0\ndata: {source: own}\nclients: 2\nselection: {selector: x}\n")
    first, text = repeat_run(settings, Path("x")).parts
    assert first == Notes([IN_PYTHON])
    assert isinstance(text, Command)
    assert text.text == settings.text
    assert repeat_comparison(settings, Path("x"), ["a"], [0]).parts[0] == Notes([IN_PYTHON])
    script = RunSettings.of("seed: 0\ndata: {source: pydoc}\nselection: {selector: '__main__:Mine'}\n")
    assert repeat_run(script, Path("x")).parts[0] == Notes([IN_SCRIPT])


def test_maps_say_what_was_updated() -> None:
    runs = [arm("fedtlu", seed) for seed in (0, 1)]
    blocks = [f"h.{at}" for at in range(4)]
    (chart,) = updated_maps(runs, blocks, 2)
    counts = [sum(block in row["selected"] for run in runs for row in run.selection[2:]) for block in blocks]
    assert chart.numbers[1] == [
        [block, f"{100 * count / 8:.0f}%"] for block, count in zip(blocks, counts, strict=True)
    ]
    one = scores_map(runs[0].selection, blocks, 2)
    assert one is not None
    words = [[one.readings["words"][at] for at in row] for row in one.readings["text"]]
    assert sum("updated" in word for word in words[2]) == 1
    assert not any("updated" in word for word in words[0]), "the warm-up is no choice"
    assert all(any(f"rank {place} of 4" in word for word in words[0]) for place in range(1, 5))


def test_gains_of_an_experiment_are_dots_with_intervals() -> None:
    row = {
        "aggregator": "fedavg",
        "threat": "clean",
        "selector": "fedtlu",
        "metric": "perplexity",
        "split": "global",
    }
    found = gain_charts([{**row, "gain_over_random_pct": 1.5, "ci_low": 0.5, "ci_high": 2.5}])
    assert found[0].numbers[1] == [["fedavg, clean", "+1.50", "+0.50 to +2.50"]]
    assert gain_charts([{**row, "gain_over_random_pct": None, "ci_low": None, "ci_high": None}]) == []
