"""`fedtlu history`: what it reads, prints, draws and refuses."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from support.federations import tiny

from fedtlu_fast import InputError, simulate
from fedtlu_fast.report.aggregate.history import history_json, read_history, score_history
from fedtlu_fast.report.aggregate.stability import GroupHistory
from fedtlu_fast.report.figures.history import history_figure
from fedtlu_fast.report.pages.parts import png


@pytest.fixture(scope="module")
def run(text: Path, tmp_path_factory: pytest.TempPathFactory):
    return simulate(tiny(text, rounds=6, warmup_rounds=2), tmp_path_factory.mktemp("runs") / "run")


def test_a_directory_tells_what_the_result_tells(run):
    settings, found = read_history(run.out)
    assert settings.selector == "fedtlu"
    direct = score_history(run.selection, run.layout)
    assert (found.stability, found.kinds) == (direct.stability, direct.kinds)
    assert [row.lag for row in found.stability] == [1, 2]
    (group,) = found.groups
    assert group.rounds == (3, 4, 5, 6)
    assert group.chosen.sum(axis=1).tolist() == [1] * 4


def test_the_report_holds_tables_and_picture(run):
    page = (run.out / "report.html").read_text(encoding="utf-8")
    assert "Kendall&#39;s tau" in page
    assert "norm weight" in page
    assert (run.out / "plots" / "ranks.png").read_bytes()[:4] == b"\x89PNG"


def test_what_cannot_be_told_is_refused(run, text: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"RUN_DIR: .*config\.yaml of an earlier run"):
        read_history(tmp_path)
    early = tmp_path / "early"
    simulate(tiny(text, rounds=1, warmup_rounds=1, selection={"selector": "full"}), early)
    with pytest.raises(InputError, match="targeted rounds; so far all were warm-up"):
        read_history(early)
    written = (early / "selection.jsonl").read_bytes()
    for other in (b"", (run.out / "selection.jsonl").read_bytes(), written.replace(b"1", b"2", 1)):
        (early / "selection.jsonl").write_bytes(other)
        with pytest.raises(InputError, match=r"selection\.jsonl was changed after it was written"):
            read_history(early)
    (early / "selection.jsonl").write_bytes(written)
    (early / "checkpoints" / "round-000001" / "model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="a whole checkpoint of this run"):
        read_history(early)
    (early / "checkpoints" / "round-000001" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"a run with a checkpoint.*checkpoint\.every"):
        read_history(early)
    shutil.rmtree(early / "checkpoints" / "round-000001")
    (early / "summary.json").unlink()
    with pytest.raises(InputError, match="of one round or more"):
        read_history(early)
    (early / "comparison.yaml").write_text("")
    with pytest.raises(InputError, match=r"this is a comparison's.*one of the runs in it"):
        read_history(early)


def random_groups(rounds, groups, blocks, ties=False):
    draws = np.random.default_rng(0)
    found = []
    for group in range(groups):
        scores = draws.normal(size=(rounds, blocks)) * (not ties)
        names = tuple(f"g{group}.{block}" for block in range(blocks))
        chosen = draws.random((rounds, blocks)) < 0.3
        found.append(GroupHistory(f"g{group}.*", names, tuple(range(5, 5 + rounds)), scores, chosen))
    return found


@pytest.mark.parametrize("rounds", [1, pytest.param(2, marks=pytest.mark.slow), 30])
@pytest.mark.parametrize(("groups", "blocks"), [(1, 2), pytest.param(3, 4, marks=pytest.mark.slow), (9, 20)])
@pytest.mark.parametrize("ties", [False, True])
def test_picture_can_always_be_drawn(rounds, groups, blocks, ties):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(png(lambda: history_figure(random_groups(rounds, groups, blocks, ties)))) > 5000


def test_picture_shows_ranks_choices_and_taus():
    (group,) = groups = random_groups(30, 1, 4)
    above, below, *_ = history_figure(groups).axes
    places = above.images[0].get_array()
    assert places.shape == (4, 30)
    assert [places[:, t].argmax() for t in range(30)] == group.scores.argmax(axis=1).tolist()
    assert sorted(places[:, 0]) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    marked = above.lines[0].get_xydata()
    assert sorted(map(tuple, marked)) == sorted(
        (5 + t, b) for t, b in zip(*group.chosen.nonzero(), strict=True)
    )
    assert below.lines[1].get_xdata().tolist() == list(range(6, 35))


def test_example_of_the_json(run):
    settings, found = read_history(run.out)
    told = json.loads(json.dumps(history_json(settings.selector, found)))
    assert told["metric"] == "excess"
    assert len(told["groups"]["transformer.h.*"]["tau_to_next"]) == 3
    assert sum(told["groups"]["transformer.h.*"]["chosen_share"]) == pytest.approx(1)
    assert told["stability"][0]["tau"]["count"] == 3
