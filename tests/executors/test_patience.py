"""How long workers may go without a sign of life."""

import pytest

from fedtlu_fast.executors import patience
from fedtlu_fast.executors.patience import SILENCE, Patience, Sign, allowed


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes forward when it is told to."""
    now = [100.0]
    monkeypatch.setattr(patience.time, "monotonic", lambda: now[0])

    def forward(seconds):
        now[0] += seconds

    return forward


def test_each_client_has_its_seconds_and_those_trained_at_once_have_them_together():
    assert allowed(5.0, client=3, together=1) == 5.0
    assert allowed(5.0, client=-1, together=1) == 5.0
    assert allowed(5.0, client=-1, together=7) == 35.0


def test_between_clients_a_busy_machine_gets_its_time():
    assert allowed(0.1, client=3, together=1) == 0.1
    assert allowed(0.1, client=-1, together=1) == SILENCE


def test_a_sign_that_stays_the_last_for_too_long_is_late(clock):
    watched, sign = Patience(), Sign(3, 1, 1.0)
    late = []
    for _ in range(7):
        late.append(watched.late({0: sign, 1: Sign(4, 1, float(len(late)))}, limit=5.0, between=1.0))
        clock(1.0)
    assert late == [[], [], [], [], [], [], [0]]


def test_a_new_sign_begins_anew(clock):
    watched = Patience()
    for stamp in (1.0, 2.0, 3.0):
        for _ in range(5):
            assert watched.late({0: Sign(-1, 1, stamp)}, limit=5.0, between=1.0) == []
            clock(1.0)


def test_a_worker_that_had_nothing_to_do_begins_anew(clock):
    watched, sign = Patience(), Sign(3, 1, 1.0)
    for _ in range(5):
        assert watched.late({0: sign}, limit=5.0, between=1.0) == []
        clock(1.0)
    assert watched.late({}, limit=5.0, between=1.0) == []
    clock(1.0)
    assert watched.late({0: sign}, limit=5.0, between=1.0) == []


def test_time_in_which_nobody_looked_on_does_not_count(clock):
    """The run was stopped as a whole, with its workers, and goes on an hour later."""
    watched, sign = Patience(), Sign(3, 1, 1.0)
    assert watched.late({0: sign}, limit=5.0, between=1.0) == []
    clock(3600.0)
    assert watched.late({0: sign}, limit=5.0, between=1.0) == []
