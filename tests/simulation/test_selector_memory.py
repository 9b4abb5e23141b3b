"""Tests what the server's selector remembers in a run: what arrives, and that a resumed run has it."""

import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import own_selectors
from support.federations import left
from support.own_selectors import Counting

import fedtlu_fast as ft
from fedtlu_fast import InputError, simulate
from fedtlu_fast.build.run import open_run
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.experiments.compare import compare
from fedtlu_fast.part_memory import recall
from fedtlu_fast.selection import Coverage, FedTLU, Random, Selector, Smoothed, as_selector
from fedtlu_fast.selection.oracle import Oracle
from fedtlu_fast.simulation.round import SELECTOR
from tests.simulation.test_own_selectors import small

OURS = [Smoothed(decay=0.5), Smoothed(mean_of="values"), Coverage(exploration=2.0)]


class Killed(BaseException):
    """Stands for the end of the process: nothing may catch it and tidy up."""


@pytest.fixture
def called():
    own_selectors.REMEMBERED.clear()
    yield own_selectors.REMEMBERED
    own_selectors.REMEMBERED.clear()


def begun(config, out, rounds):
    """A run that was killed right after a round."""

    def kill(row):
        if row["round"] == rounds:
            raise Killed

    with pytest.raises(Killed):
        simulate(config, out, callbacks=[kill])
    return out


def of_selector(out: Path) -> list[dict[str, torch.Tensor]]:
    """What each checkpoint has of the selector's memory."""
    files = [load_file(path) for path in sorted(out.glob("checkpoints/*/memory.safetensors"))]
    return [{name: own for name, own in held.items() if name.startswith("Selector/")} for held in files]


# --- what arrives ----------------------------------------------------------------------------------


def test_a_selector_is_asked_after_each_targeted_round_and_finds_its_answer_in_the_next(called):
    result = simulate(small(Counting(), rounds=6, warmup_rounds=2))
    assert [index for index, *_ in called] == [3, 4, 5, 6], "not in the warm-up"
    names = [block.name for block in result.layout.blocks]
    times = np.zeros(len(names))
    assert called[0][1] == {}
    for (index, memory, applied), row in zip(called, result.selection[2:], strict=True):
        assert [names[at] for at in applied.nonzero()[0]] == row["selected"]
        if index > 3:
            assert memory["times"].tolist() == times.tolist()
            assert memory["times"].dtype == torch.bfloat16
            assert memory["last/round"].tolist() == index - 1
        times += applied
    assert len({str(row["selected"]) for row in result.selection[2:]}) > 1, "and chooses by it"


def test_a_round_from_which_no_change_arrives_leaves_the_memory_as_it_is(called):
    class Sometimes(ft.Sampler):
        def draw(self, pool, count):
            return [] if pool.round == 2 else list(range(count))

    simulate(small(Counting(), rounds=3, warmup_rounds=0, participation={"sampler": Sometimes()}))
    assert [index for index, *_ in called] == [1, 3]
    assert called[1][1]["last/round"] == 1


def test_a_block_whose_change_is_not_finite_is_chosen_and_not_among_the_applied(called):
    class Spoils(ft.ServerOptimizer):
        def step(self, change, state, offsets, mask):
            step = change.clone()
            step[: offsets[-3]] = torch.inf  # all but the head
            return step, state

    config = small(Counting(), rounds=1, warmup_rounds=0, aggregation={"server_optimizer": Spoils()})
    result = simulate(config)
    ((_, _, applied),) = called
    (spoilt,) = result.metrics[0]["nonfinite_blocks"]
    names = [block.name for block in result.layout.blocks]
    assert spoilt in names[:-1]
    assert [names[at] for at in applied.nonzero()[0]] == names[-1:]


# --- resuming, workers, comparisons ----------------------------------------------------------------


@pytest.mark.parametrize("selector", [*OURS, Counting()], ids=lambda made: type(made).__name__)
def test_a_run_killed_after_any_round_goes_on_to_the_same_bits(selector, tmp_path):
    config = small(selector, rounds=5, warmup_rounds=1, checkpoint={"every": 1, "retain": 9})
    simulate(config, tmp_path / "whole")
    assert [bool(held) for held in of_selector(tmp_path / "whole")] == [False, True, True, True, True]
    for rounds in range(1, 5):
        out = begun(config, tmp_path / f"after-{rounds}", rounds)
        simulate(config, out, resume=True)
        assert left(out) == left(tmp_path / "whole")
        last = "checkpoints/round-000005/memory.safetensors"
        assert (out / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="workers are forked")
@pytest.mark.parametrize("selector", [Smoothed("agreement", 0.5), Coverage(exploration=2.0), Counting()])
def test_workers_do_not_matter(selector):
    ways = [{"executor": "serial"}, *({"executor": "processes", "workers": count} for count in (1, 2))]
    found = [simulate(small(selector, {"lanes": 4, **way}, rounds=4, warmup_rounds=1)) for way in ways]
    assert all(result.selection == found[0].selection for result in found)
    assert len({result.summary["params_sha256"] for result in found}) == 1


@pytest.mark.usefixtures("in_process")
def test_the_arms_of_a_comparison_are_the_runs_they_would_be_alone(tmp_path):
    config = small("fedtlu", rounds=4, warmup_rounds=2)
    for result in compare(config, ("smoothed", "coverage", "fedtlu"), (0,), tmp_path):
        alone = simulate(small(result.selector, rounds=4, warmup_rounds=2))
        assert alone.summary["params_sha256"] == result.summary["params_sha256"]


def test_a_selector_without_memory_leaves_nothing_in_checkpoints(tmp_path):
    config = small("fedtlu", rounds=2, warmup_rounds=0, checkpoint={"every": 1})
    simulate(config, tmp_path / "out")
    assert {
        name for path in tmp_path.glob("out/checkpoints/*/memory.safetensors") for name in load_file(path)
    } == {"Selection/server/chosen"}


def test_a_memory_that_is_given_up_leaves_nothing_behind():
    class Once(FedTLU):
        def remembers(self, evidence, applied):
            return {} if evidence.memory else {"applied": torch.from_numpy(applied)}

    with closing(open_run(small(Once(), rounds=3, warmup_rounds=0))) as run:
        for index, names in ((1, {"applied"}), (2, set()), (3, {"applied"})):
            run.advance(index)
            assert set(recall(run.state.memory, SELECTOR).server) == names
            assert (SELECTOR in run.state.memory) == bool(names)


def test_what_is_remembered_is_a_copy(called):
    class Reuses(Counting):
        kept = torch.zeros(1)

        def remembers(self, evidence, applied):
            super().remembers(evidence, applied)
            self.kept.add_(1)
            return {"last/round": self.kept}

    simulate(small(Reuses(), rounds=3, warmup_rounds=0))
    assert [memory.get("last/round", torch.zeros(1)).item() for _, memory, _ in called] == [0, 1, 2]


# --- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (None, r"got None; expected a mapping from names to tensors"),
        ([torch.zeros(2)], r"expected a mapping from names to tensors"),
        ({"a": 1.0}, r"\['a'\]: got 1\.0; expected a dense tensor of numbers"),
        ({"a": np.zeros(2)}, r"\['a'\]: got 'an array of float64 and shape \(2,\)'; expected a dense tensor"),
        ({3: torch.zeros(2)}, r"name: got 3; expected a text"),
        ({"a": torch.zeros(2, dtype=torch.complex64)}, r"\['a'\]: got .*complex64"),
        ({"a": torch.eye(2).to_sparse()}, r"\['a'\]: got .*sparse"),
    ],
)
def test_a_wrong_memory_names_the_selector(found, message):
    class Mine(FedTLU):
        def remembers(self, evidence, applied):
            return found

    with pytest.raises(InputError, match=rf"selection\.selector: Mine\.remembers\(\).*{message}"):
        simulate(small(Mine(), rounds=1, warmup_rounds=0))


def test_what_a_selector_raises_or_changes_names_it():
    class Raises(FedTLU):
        def remembers(self, evidence, applied):
            raise ZeroDivisionError("no luck")

    class Changes(Counting):
        def utility(self, evidence):
            for tensor in evidence.memory.values():
                tensor.add_(1)
            return super().utility(evidence)

    with pytest.raises(InputError, match=r"selection\.selector: got '.*Raises'; .*no luck"):
        simulate(small(Raises(), rounds=1, warmup_rounds=0))
    with pytest.raises(InputError, match=r"Changes\.choose, which changed memory\['drawn'\] in place"):
        simulate(small(Changes(), rounds=2, warmup_rounds=0))


def test_clients_and_single_choices_have_no_memory():
    with pytest.raises(
        InputError, match=r"client_selection\.selector: got '.*Counting'; .*without remembers"
    ):
        parse_config({"client_selection": {"selector": Counting(), "budget": 1}})
    before = {f"h.{at}.w": torch.zeros(2) for at in range(3)}
    scores = ft.score(before, {name: own + 1 for name, own in before.items()}, granularity="tensor")
    with pytest.raises(InputError, match=r"selector: got 'Smoothed'; .*choose has no memory of rounds"):
        ft.choose(scores, selector="smoothed")
    with pytest.raises(InputError, match=r"a selector that needs no samples held by the server, .* held_out"):
        ft.choose(scores, selector="oracle")


def test_selectors_say_whether_the_aggregate_is_enough():
    for made in (*OURS, Random(), FedTLU("relative_change"), Counting()):
        assert made.aggregate_only
    for made in (
        Oracle(),
        FedTLU("agreement"),
        Coverage("agreement"),
        as_selector(own_selectors.apart),
    ):
        assert not made.aggregate_only
    assert {type(made).__name__ for made in (*OURS, Counting(), Random(), Oracle()) if made.has_memory} == {
        "Smoothed",
        "Coverage",
        "Counting",
    }
    assert not Selector.remembers(Random(), None, None)
