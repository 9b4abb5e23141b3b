"""Past runs side by side: what belongs together, what differs, and where the page goes."""

import json
from pathlib import Path

import pytest
import torch
from support.federations import tiny
from support.html_pages import HtmlPage, read_page

import fedtlu_fast as ft
from fedtlu_fast import InputError, WriteReport, simulate
from fedtlu_fast.config import RunConfig
from fedtlu_fast.report.again import page_place, write_report
from fedtlu_fast.report.aggregate.entries import differing, labels, read_entries, setting_text
from fedtlu_fast.runs.directory import COMPARISON, PLAN
from fedtlu_fast.runs.sealed import seal_yaml


class NoReport(WriteReport):
    """Leaves a run without its report, whose pictures take longer than the run."""

    def on_end(self, run: object) -> None:
        """Writes nothing."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, text: Path) -> Path:
    """Three runs, two of which differ in their seed alone, and a copy of them as a comparison."""
    folder = tmp_path_factory.mktemp("runs")

    def config(**over: object) -> RunConfig:
        return tiny(text, rounds=2, warmup_rounds=1, evaluation={"trained_clients": 0}, **over)

    def run(settings: RunConfig, name: str) -> None:
        simulate(settings, folder / name, callbacks=[NoReport()])

    run(config(), "a-seed0")
    run(config(seed=1, run_name="second"), "a-seed1")
    run(config(server_lr=0.5, execution={"lanes": 32}), 'b <i>"&')
    compared = folder / "compared"
    compared.mkdir()
    for seed in (0, 1):
        (compared / f"fedtlu-seed{seed}").symlink_to(folder / f"a-seed{seed}", target_is_directory=True)
    (compared / COMPARISON).write_bytes(seal_yaml("selectors: [fedtlu]\nseeds: [0, 1]\n").encode())
    return folder


def page_at(path: Path) -> HtmlPage:
    return read_page(path.read_text(encoding="utf-8"))


def names(runs: Path) -> list[Path]:
    return [runs / "a-seed0", runs / "a-seed1", runs / 'b <i>"&']


def test_runs_that_differ_in_their_seed_alone_are_one_entry(runs: Path) -> None:
    same, other = read_entries(names(runs), "x")
    assert (same.name, same.seeds, other.name, other.seeds) == ("a", [0, 1], 'b <i>"&', [0])
    assert {run.selector for run in same.runs} == {"a"}
    assert differing([same, other])[0] == "server_lr", "what decides the result comes first"
    assert all(name.startswith("execution.") for name in differing([same, other])[1:])
    assert (setting_text(same, "server_lr"), setting_text(other, "server_lr")) == ("1.0", "0.5")
    assert setting_text(same, "no.such") == "-"


def test_the_same_run_twice_has_no_spread(runs: Path) -> None:
    first, second = read_entries([runs / "a-seed0", runs / "a-seed0"], "x")
    assert (first.seeds, second.seeds) == ([0], [0])
    assert first.name != second.name


def test_arms_of_a_comparison_keep_their_names(runs: Path) -> None:
    (entry,) = read_entries([runs / "compared"], "x")
    assert (entry.name, entry.seeds) == ("compared/fedtlu", [0, 1])


def test_labels_have_as_many_folders_as_tell_them_apart(tmp_path: Path) -> None:
    assert labels([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    assert labels([tmp_path / "x" / "a", tmp_path / "y" / "a"]) == ["x/a", "y/a"]


def test_one_page_shows_what_differs_and_what_came_of_it(runs: Path, tmp_path: Path) -> None:
    place = write_report(names(runs), ["train_loss"], tmp_path / "new" / "both.html")
    assert place == tmp_path / "new" / "both.html"
    page = page_at(place)
    assert page.texts["h1"] == ["3 runs side by side"]
    assert "settings: server_lr, execution.lanes" in "".join(page.texts["p"])
    assert page.sections == [
        "Result",
        "What differs in their settings",
        "Which blocks were updated",
        "Costs",
        "Faults and warnings",
        "Environment",
        "How to repeat it",
    ]
    curves, logged = page.readings
    assert [one["name"] for one in curves["series"]] == ["a", 'b <i>"&']  # type: ignore[attr-defined]
    assert " to " in json.dumps(curves), "the spread of two seeds"
    assert logged["stops"] == ["round 1", "round 2"]
    assert not (tmp_path / "new" / "plots").exists()


def test_runs_of_a_federation_are_repeated_in_python_and_shares_are_in_per_cent(tmp_path: Path) -> None:
    accuracy = ft.Metric(lambda outputs, targets: (outputs.argmax(1) == targets).float(), percent=True)
    samples = torch.randn(8, 4), torch.arange(8) % 3
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(3)), torch.nn.Linear(4, 3))
    task = ft.SupervisedTask(model, torch.nn.functional.cross_entropy, {"right": accuracy})
    federation = ft.Federation(task, ft.Datasets([samples] * 3, samples), cohort=2, keep=1, executor="serial")
    places = [tmp_path / "mine", tmp_path / "longer"]
    first, _ = (
        federation.run(rounds=rounds, out=out, callbacks=[NoReport()]) for rounds, out in enumerate(places, 1)
    )
    write_report(places, out=tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "repeated by that code: mine, longer." in text
    assert "fedtlu run --config" not in text
    assert f"{first.summary['test_right']:.2%}</td>" in text


def test_one_run_may_have_its_page_elsewhere(runs: Path, tmp_path: Path) -> None:
    place = ft.write_report(runs / "a-seed0", ["train_loss"], tmp_path)
    assert place == tmp_path / "report.html"
    page = page_at(place)
    assert page.texts["h1"] == ["Federated run: fedtlu, seed 0"]
    assert "train loss" in page.texts["th"]
    assert not (runs / "a-seed0" / "report.html").exists()


def test_the_name_of_a_run_is_in_its_title(runs: Path, tmp_path: Path) -> None:
    page = page_at(ft.write_report(runs / "a-seed1", out=tmp_path))
    assert page.texts["h1"] == ["Federated run “second”: fedtlu, seed 1"]


def test_an_experiment_s_report_is_made_again(runs: Path, tmp_path: Path) -> None:
    place = tmp_path / "ptb-transformer-small"
    (place / "fedavg-clean").mkdir(parents=True)
    for name in ("fedtlu-seed0", "fedtlu-seed1"):
        (place / "fedavg-clean" / name).symlink_to(runs / "compared" / name, target_is_directory=True)
    arranged = (runs / "compared" / COMPARISON).read_bytes()
    (place / PLAN).write_bytes(seal_yaml("conditions: {fedavg-clean: {}, fedavg-noisy: {}}\n").encode())
    (place / "fedavg-clean" / COMPARISON).write_bytes(arranged)
    (place / "fedavg-clean" / "config.yaml").write_bytes((runs / "a-seed0" / "config.yaml").read_bytes())
    with pytest.raises(InputError, match=r"fedavg-noisy is missing in it.*fedtlu experiment again"):
        write_report(place)
    (place / PLAN).write_bytes(seal_yaml("conditions: {fedavg-clean: {}}\n").encode())
    (place / "table.csv").write_text("task,model\nx,mine\n")
    page = page_at(write_report(place))
    assert page.texts["h1"] == ["Experiment: ptb-transformer"]
    assert ",mine," in (place / "table.csv").read_text()
    assert (place / "fedavg-clean" / "report.html").exists()
    (entry,) = read_entries([place], "x")
    assert entry.name == "ptb-transformer-small/fedavg-clean/fedtlu"


@pytest.mark.parametrize("out", ["a-seed0", "a-seed0/report.html"])
def test_the_page_takes_no_run_s_place(runs: Path, out: str) -> None:
    with pytest.raises(InputError, match="where no run has its own report"):
        page_place(runs / out)
    assert page_place(runs / "a-seed0" / "other.html") == (runs / "a-seed0", "other.html")


def test_what_is_no_run_or_no_place_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="one directory or more"):
        write_report([])
    with pytest.raises(InputError, match=r"got None; expected a file or a directory for the page"):
        write_report(names(runs))
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match=r"a directory, or a file that ends in \.html"):
        write_report(names(runs), out=tmp_path / "file")
    with pytest.raises(InputError, match=r"config\.yaml"):
        write_report([runs / "a-seed0", tmp_path / "none"], out=tmp_path)
    with pytest.raises(InputError, match="file is a file"):
        write_report(names(runs), out=tmp_path / "file" / "x.html")
