"""Participation: drawn clients that are silent or late, and the losses that the server remembers."""

from collections import Counter
from math import inf, nan
from types import SimpleNamespace

import numpy as np
import pytest

from fedtlu_fast import InputError
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.population import KnowsSizes
from fedtlu_fast.data.sources.synthetic import Synthetic, SyntheticPopulation
from fedtlu_fast.executors.lanes import ClientReports
from fedtlu_fast.part_memory import PartMemory
from fedtlu_fast.participation import Availability, Duty, Fixed, Participation, Sampler, Trace
from fedtlu_fast.participation.cohort import sample_cohort
from fedtlu_fast.participation.turnout import LOSS, PART, known_losses


class Unasked:
    """A population without methods: a call to any of them would fail."""


def participation(clients=100, cohort=10, population=None, **given):
    config = parse_config({"clients": clients, "cohort": cohort, "seed": 3, "participation": given})
    return config.participation.value.begin(
        config.seed, clients, cohort, config.rounds, population or Unasked()
    )


def population(clients):
    return SyntheticPopulation(Synthetic(), clients, 0, local_fraction=0.2)


def test_by_default_all_drawn_clients_take_part():
    default = participation()
    for index in range(1, 20):
        found = default.draw(index, {})
        assert found.drawn == found.cohort == sample_cohort(3, index, 100, 10)
        assert found.dropped == {}


def test_over_selection_goes_on_without_the_last_ones():
    over = participation(over_selection=1.3)
    late = Counter()
    for index in range(1, 1001):
        found = over.draw(index, {})
        assert found.drawn == sample_cohort(3, index, 100, 13)
        assert len(found.cohort) == 10
        assert found.cohort == [client for client in found.drawn if client not in found.dropped]
        assert set(found.dropped.values()) == {"too late"}
        late.update(found.drawn.index(client) for client in found.dropped)
    # Each of 13 places is late with chance 3/13: 231 +- 13.3; five standard deviations, the seed is fixed.
    assert all(abs(late[place] - 231) < 67 for place in range(13))


def test_clients_drop_out_independently():
    under = participation(dropout=0.3)
    lost = [under.draw(index, {}).dropped for index in range(1, 1001)]
    assert all(set(dropped.values()) <= {"no answer"} for dropped in lost)
    counts = np.array([len(dropped) for dropped in lost])
    # Binomial(10, 0.3): mean 3, variance 2.1; of 1000 rounds.
    assert abs(counts.mean() - 3) < 5 * (2.1 / 1000) ** 0.5
    assert counts.var() == pytest.approx(2.1, rel=0.25)


def test_a_clients_dropout_does_not_depend_on_the_other_drawn_clients():
    few, many = participation(cohort=5, dropout=0.5), participation(cohort=100, dropout=0.5)
    for index in range(1, 30):
        here, there = few.draw(index, {}), many.draw(index, {})
        assert all((client in here.dropped) == (client in there.dropped) for client in here.drawn)


def test_over_selection_fills_the_cohort_with_clients_that_answer():
    both = participation(over_selection=2, dropout=0.4)
    for index in range(1, 200):
        found = both.draw(index, {})
        silent = [client for client, why in found.dropped.items() if why == "no answer"]
        late = [client for client, why in found.dropped.items() if why == "too late"]
        assert len(found.drawn) == 20
        assert len(found.cohort) == min(10, 20 - len(silent))
        assert len(late) == max(0, 10 - len(silent))
        assert sorted([*found.cohort, *silent, *late]) == sorted(found.drawn)


def test_without_available_clients_none_is_drawn(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("client,first,last\n5,2,40\n")
    for sampler in ("uniform", "fixed", "size", "loss"):
        given = participation(population=population(100), sampler=sampler, trace=str(path))
        assert given.draw(1, {}).drawn == []
    assert participation(trace=str(path)).draw(2, {}).cohort == [5]


def test_the_trace_identifies_the_run(tmp_path):
    path = tmp_path / "trace.csv"
    path.write_text("client,first,last\n5,2,40\n")
    assert participation(trace=str(path)).identity.keys() == {"trace_sha256"}
    assert participation(duty=0.5).identity == participation().identity == {}


def test_fewer_clients_are_drawn_when_few_are_available():
    found = participation(clients=20, cohort=15, duty=0.5).draw(1, {})
    assert 3 <= len(found.drawn) < 15


def test_only_the_sampler_by_loss_keeps_losses():
    reports = ClientReports()
    reports.add(4, 10, 2.5, accepted=True)
    reports.add(7, 10, nan, accepted=False)
    reports.fail(9, "broken")
    learnt = list(zip(reports.clients, reports.losses, reports.accepted, strict=True))
    before = {PART: PartMemory(clients={LOSS: {4: 9.0, 1: 0.5}})}
    by_loss = participation(population=population(100), sampler="loss")
    assert known_losses(by_loss.learnt(before, learnt)) == {1: 0.5, 4: 2.5, 7: -inf, 9: -inf}
    assert known_losses(before) == {4: 9.0, 1: 0.5}, "state is not changed but made anew"
    assert participation().learnt({}, learnt) == {}


@pytest.mark.parametrize("sampler", ["size", "loss"])
def test_a_population_without_sizes_is_refused(sampler):
    assert not isinstance(Unasked(), KnowsSizes)
    with pytest.raises(InputError, match=rf"sampler: got '{sampler}'; expected uniform or fixed"):
        participation(sampler=sampler)


def test_negative_sizes_are_refused():
    class Broken:
        def sizes(self):
            return np.array([3, 4, -2, *[1] * 97])

    with pytest.raises(InputError, match="client 2 holds -2"):
        participation(population=Broken(), sampler="size")


# --- parts of the user's -------------------------------------------------------------------------


class First(Sampler):
    """Draws the clients with the lowest numbers, or the clients that a test gives."""

    def __init__(self, drawn=None):
        self.drawn = drawn

    def draw(self, pool, count):
        return list(range(count)) if self.drawn is None else self.drawn


class Odd(Availability):
    """Makes the clients with odd numbers available."""

    def schedule(self, seed, clients, rounds):
        odd = np.arange(1, clients, 2)
        return SimpleNamespace(identity={"rule": "odd"}, available=lambda round_index: odd)


def begun(value, clients=20, cohort=4):
    return value.begin(3, clients, cohort, 5, Unasked())


def test_a_sampler_and_an_availability_of_the_user_s_take_part():
    over = begun(Participation(First(), over_selection=1.5))
    assert over.draw(1, {}).drawn == [0, 1, 2, 3, 4, 5]
    odd = begun(Participation("uniform", Odd()))
    assert odd.identity == {"rule": "odd"}
    assert len(odd.draw(1, {}).drawn) == 4
    assert all(client % 2 for client in odd.draw(1, {}).drawn)


@pytest.mark.parametrize("drawn", [[0, 0], [20], [-1], [0, 1, 2, 3, 4], [2]])
def test_the_draw_of_a_user_s_sampler_is_checked(drawn):
    with pytest.raises(
        InputError, match=r"sampler: got .* draws at most 4 different clients of those that can"
    ):
        begun(Participation(First(drawn), Odd())).draw(1, {})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sampler": "best"}, "^sampler: got 'best'; expected one of uniform, poisson, size, loss, fixed"),
        ({"sampler": 3}, "^sampler: got 3"),
        ({"over_selection": 0.5}, "^over_selection: got 0.5"),
        ({"dropout": 1}, "^dropout: got 1"),
    ],
)
def test_a_participation_checks_its_parameters(given, message):
    with pytest.raises(InputError, match=message):
        Participation(**given)


def test_settings_are_the_value_that_python_takes():
    tree = {"sampler": "fixed", "members": [*range(10)], "duty": 0.5, "period": 4, "dropout": 0.1}
    value = Participation(Fixed(tuple(range(10))), Duty(0.5, 4), dropout=0.1)
    assert parse_config({"participation": tree}).participation.value == value
    assert parse_config({"participation": {"trace": "a.csv"}}).participation.value.availability == Trace(
        "a.csv"
    )
