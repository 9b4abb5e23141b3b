"""Tests the conformance kit: our own parts pass, and every check catches a part that breaks a promise."""

import sys
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from support import own_parts, own_selectors

from fedtlu_fast import InputError
from fedtlu_fast.aggregation import Aggregated, Krum, Mean, TrimmedMean
from fedtlu_fast.client_steps import ClientStep
from fedtlu_fast.parts import part
from fedtlu_fast.registry import NAMES
from fedtlu_fast.selection import Coverage, Drift, FedLP, FedTLU, Full, Ranking, Selector, Smoothed, Strategic
from fedtlu_fast.testing import ConformanceError, check_client_step, check_rule, check_selector


@pytest.mark.parametrize("name", NAMES["selector"])
def test_our_selectors_for_the_server_pass(name):
    check_selector(name)


@pytest.mark.parametrize("name", NAMES["client_selector"])
def test_our_selectors_for_clients_pass(name):
    check_selector(name, "clients")


@pytest.mark.parametrize("name", NAMES["rule"])
def test_our_rules_pass(name):
    check_rule(name)


@pytest.mark.parametrize(
    "given",
    [
        *(FedTLU(name, pooling="pooled") for name in NAMES["metric"]),
        *(Smoothed(name, mean_of="values") for name in NAMES["metric"]),
        Coverage("agreement", 0.0, pooling="pooled"),
        Full(),
    ],
)
def test_objects_pass(given):
    check_selector(given)


def test_parts_of_ones_own_pass():
    for score in (own_selectors.largest, own_selectors.apart, own_selectors.Keen(0.5)):
        check_selector(score)
    for own in (own_selectors.leaning, "support.own_selectors:Keen", Strategic("snr", 0.0)):
        check_selector(own, "clients")
    for rule in (own_parts.Cautious(0.25), own_parts.middle, "support.own_parts:Unchecked", TrimmedMean(0.3)):
        check_rule(rule)


def test_a_selector_that_remembers_passes():
    check_selector(Remembering())


def test_what_does_not_exist_or_does_not_fit_the_side_is_bad_input():
    with pytest.raises(InputError, match="Did you mean fedtlu"):
        check_selector("fedtl")
    with pytest.raises(InputError, match="got 'gradnorm'; expected one of excess"):
        check_selector(Strategic())
    with pytest.raises(ConformanceError, match="P1 needs clients' budgets"):
        check_selector(NoNeeds())
    with pytest.raises(InputError, match=r"got 'Smoothed'; expected a client selector without remembers"):
        check_selector(Smoothed(), "clients")
    with pytest.raises(InputError, match="byzantine"):
        check_rule(Krum(byzantine=5))


class NoNeeds(Strategic):
    """Needs budgets, which the server does not have."""

    needs = ()


# --- selectors that break a promise ----------------------------------------------------------------


class Greedy(Selector):
    """Chooses too many blocks."""

    def choose(self, evidence, room):
        return np.tile(room.open, (evidence.rows, 1))


class Shapeless(Selector):
    """Returns one row without its axis."""

    def choose(self, evidence, room):
        return room.open


class Closed(Full):
    """Chooses blocks that are not open."""

    def choose(self, evidence, room):
        return np.ones((evidence.rows, len(evidence.layout.blocks)), np.bool_)


class Restless(Ranking):
    """Draws from its own generator."""

    draws = np.random.default_rng(0)

    def utility(self, evidence):
        return self.draws.random((evidence.rows, len(evidence.layout.blocks)))


class Meddling(FedTLU):
    """Changes its evidence."""

    def utility(self, evidence):
        found = evidence.metrics[self.metric]
        found[:, 0] += 1
        return found


class Spending(Ranking):
    """Changes the room."""

    def utility(self, evidence):
        return np.zeros((evidence.rows, len(evidence.layout.blocks)))

    def choose(self, evidence, room):
        mask = super().choose(evidence, room)
        room.budgets[:] = 0
        return mask


class Fragile(FedTLU):
    """Raises an error at NaN."""

    def utility(self, evidence):
        if np.isnan(evidence.metrics[self.metric]).any():
            raise ValueError("NaN")
        return super().utility(evidence)


class Together(Ranking):
    """Looks at the other clients."""

    needs = ("gradnorm",)

    def utility(self, evidence):
        gains = evidence.metrics["gradnorm"]
        return gains - 2 * gains.mean(axis=0)


class Different(FedLP):
    """Claims that all clients get the same choice, but chooses differently."""

    same_for_all = True


@part
class Holding(FedTLU):
    """Holds an object that cannot be pickled.

    Attributes:
        held: a function.
    """

    held: object = field(default=None)

    def __post_init__(self):
        object.__setattr__(self, "held", lambda: 0)


@dataclass(frozen=True)
class Forgetful(Drift):
    """Lacks its parameter in its constructor."""

    shift: int = field(default=0, init=False)

    def utility(self, evidence):
        return np.roll(super().utility(evidence), self.shift, axis=1)


def shifted():
    made = Forgetful()
    object.__setattr__(made, "shift", 3)
    return made


class Remembering(FedTLU):
    """Remembers something; others return something else."""

    def remembers(self, evidence, applied):
        return {"applied": torch.from_numpy(applied)}


class Unnamed(Remembering):
    """Returns a tensor without a name."""

    def remembers(self, evidence, applied):
        return torch.from_numpy(applied)


class Plain(Remembering):
    """Remembers a number that is no tensor."""

    def remembers(self, evidence, applied):
        return {"count": int(applied.sum())}


class Moved(Remembering):
    """Remembers the draws of its own generator."""

    draws = np.random.default_rng(0)

    def remembers(self, evidence, applied):
        return {"draw": torch.tensor(self.draws.random())}


class Growing(Remembering):
    """Changes its memory where it lies."""

    def utility(self, evidence):
        if "applied" in evidence.memory:
            evidence.memory["applied"].numpy()[:] ^= True
        return super().utility(evidence)


class Grasping(Remembering):
    """Changes the blocks that were applied."""

    def remembers(self, evidence, applied):
        evidence.metrics[self.metric][:] = 0
        return super().remembers(evidence, applied)


class Clumsy(Remembering):
    """Raises an error in the second round."""

    def remembers(self, evidence, applied):
        if evidence.memory:
            raise ValueError("again")
        return super().remembers(evidence, applied)


@pytest.mark.parametrize(
    ("selector", "side", "message"),
    [
        (Greedy(), "server", "one block of each group: the choice takes more than there is room for"),
        (Greedy(), "clients", "whole blocks: the choice takes more than there is room for"),
        (Shapeless(), "server", "expected Shapeless to return a mask"),
        (Closed(), "clients", "expected Closed to choose only open blocks"),
        (Restless(), "server", "gives another choice the second time"),
        (Meddling(), "server", "choose changed what it was given"),
        (Spending(), "clients", "choose changed what it was given"),
        (Fragile(), "server", "metrics that are NaN: .*it raised ValueError: 'NaN'"),
        (Together(), "clients", "a client alone chooses otherwise than among others"),
        (Different(), "clients", "same_for_all is set, and clients get different choices"),
        (Holding(), "server", "it cannot be pickled"),
        (shifted(), "clients", "found again by its name and parameters chooses otherwise"),
        (
            Unnamed(),
            "server",
            r"round 1 in a row: .*Unnamed.remembers\(\): .*expected a mapping from names to",
        ),
        (Plain(), "server", r"remembers\(\)\['count'\]: got 5; expected a dense tensor"),
        (Moved(), "server", "round 1 in a row, the second time: the selector remembers something else"),
        (Growing(), "server", "round 2 in a row: choose changed what it was given"),
        (Grasping(), "server", "round 1 in a row: remembers changed what it was given"),
        (
            Clumsy(),
            "server",
            "round 2 in a row: remembers raised ValueError: 'again'|it raised ValueError: 'ag",
        ),
        (own_selectors.broken, "server", "a function of a Change; .*no luck"),
        (own_selectors.short, "clients", "expected short to return shape"),
    ],
)
def test_a_selector_that_breaks_a_promise_is_caught(selector, side, message):
    with pytest.raises(ConformanceError, match=message):
        check_selector(selector, side)


def test_a_part_of_a_script_passes_though_it_has_no_name_for_others(monkeypatch):
    class Scripted(Full):
        pass

    Scripted.__module__, Scripted.__qualname__ = "__main__", "Scripted"
    monkeypatch.setattr(sys.modules["__main__"], "Scripted", Scripted, raising=False)
    check_selector(Scripted())


def test_a_part_that_no_other_process_finds_is_caught():
    class Local(Full):
        pass

    with pytest.raises(ConformanceError, match=r"cannot be pickled|cannot be found again"):
        check_selector(Local())
    with pytest.raises(ConformanceError, match=r"cannot be pickled|cannot be found again"):
        check_rule(lambda updates, weights: updates[0])


# --- rules that break a promise --------------------------------------------------------------------


class Narrow(own_parts.Cautious):
    """Returns too little."""

    def finish(self, state):
        return Aggregated(super().finish(state).change[:-1])


class Double(own_parts.Cautious):
    """Returns another dtype."""

    def finish(self, state):
        return Aggregated(super().finish(state).change.double())


class Dice(own_parts.Cautious):
    """Draws from its own generator."""

    draws = np.random.default_rng(0)

    def finish(self, state):
        return Aggregated(super().finish(state).change * float(self.draws.random()))


class Eating(own_parts.Cautious):
    """Changes the vectors."""

    def add(self, state, client, weight, vector):
        super().add(state, client, weight, vector)
        vector.zero_()
        return state


class Drifting(own_parts.Cautious):
    """Changes the global parameters."""

    def finish(self, state):
        state["base"] += 1
        return super().finish(state)


class Keeping(own_parts.Cautious):
    """Uses the vectors after `add`."""

    def add(self, state, client, weight, vector):
        state.setdefault("kept", []).append(vector)
        return super().add(state, client, weight, vector)

    def finish(self, state):
        kept = [vector - state["base"] for vector in state.get("kept", [])]
        return Aggregated(torch.stack(kept).mean(dim=0)) if kept else super().finish(state)


class Inventive(own_parts.Cautious):
    """Makes a change although no client arrived."""

    def finish(self, state):
        return Aggregated(super().finish(state).change + 1)


class Helpless(own_parts.Cautious):
    """Raises an error if no client arrives."""

    def finish(self, state):
        return Aggregated(state["sum"] * (1 / state["total"]))


class Adding(Mean):
    """Adds sums differently from clients."""

    def add_sum(self, state, weight, partial):
        return super().add_sum(state, weight, 2 * partial)


class Pretending(own_parts.Cautious):
    """Keeps clients without declaring it."""

    def finish(self, state):
        return Aggregated(super().finish(state).change, [0])


class Backward(Pretending):
    """Names places that do not exist."""

    chooses = True

    def finish(self, state):
        return Aggregated(super().finish(state).change, [9, 0])


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Narrow(), "the change has to be a tensor of shape"),
        (Double(), "dtype torch.float32"),
        (Dice(), "the second time the change is another"),
        (Eating(), "add changed the vector of client 0"),
        (Drifting(), "the rule changed the global parameters"),
        (Keeping(), "not finite"),
        (Inventive(), "no client arrives: the change is not zero"),
        (Helpless(), "0 clients: the rule raised ZeroDivisionError"),
        (Adding(), "add_sum of all clients gives another change"),
        (Pretending(), "finish says which clients were kept, and chooses is False"),
        (Backward(), r"places of arrivals, ascending; it is \[9, 0\]"),
        (own_parts.transposed, "the rule raised InputError: 'aggregation.rule: got"),
    ],
)
def test_a_rule_that_breaks_a_promise_is_caught(rule, message):
    with pytest.raises(ConformanceError, match=message):
        check_rule(rule)


# --- client steps ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*NAMES["client_step"], *NAMES["threat"]])
def test_our_client_steps_pass(name):
    check_client_step(name)


class InPlace(ClientStep):
    """Changes the update that it gets."""

    def after(self, client, update):
        update.params.mul_(2)
        return update


class Moody(ClientStep):
    """Draws from its own generator."""

    draws = np.random.default_rng(0)

    def after(self, client, update):
        return replace(update, params=update.params + float(self.draws.normal()))


class Undeclared(ClientStep):
    """Changes an item that it does not declare."""

    changes = frozenset({"blocks"})

    def before(self, client, start):
        return replace(start, correction=torch.zeros_like(start.params))


class Hoarding(ClientStep):
    """Remembers a tensor."""

    def after(self, client, update):
        return replace(update, memory={"last": update.params})


class Appending(ClientStep):
    """Changes its memory in place."""

    def after(self, client, update):
        held = client.memory.get("held", np.zeros(3, np.float32))
        held += 1
        return replace(update, memory={"held": held})


class Delicate(ClientStep):
    """Raises an error at NaN."""

    def after(self, client, update):
        if not bool(torch.isfinite(update.params).all()):
            raise ValueError("NaN")
        return update


class Silent(ClientStep):
    """Returns nothing."""

    def after(self, client, update):
        replace(update, weight=1.0)


class Uncounted(ClientStep):
    """Says that a message has half a byte."""

    def message_bytes(self, layout, blocks):
        return len(blocks) / 2


@pytest.mark.parametrize(
    ("step", "message"),
    [
        (InPlace(), "the step changed the update in place"),
        (Moody(), "the second time, clients send other vectors"),
        (Undeclared(), "another correction from before"),
        (Hoarding(), r"memory\['last'\].*a NumPy array of numbers"),
        (Appending(), "the step raised ValueError: .*read-only"),
        (Delicate(), "the step raised ValueError: 'NaN'"),
        (Silent(), "got None; expected the ClientUpdate that it returns"),
        (Uncounted(), r"message_bytes\(\) of the blocks .*a whole number from 0 on"),
        (FedTLU(), "FedTLU is no subclass of ClientStep"),
    ],
)
def test_a_client_step_that_breaks_a_promise_is_caught(step, message):
    with pytest.raises(ConformanceError, match=message):
        check_client_step(step)
