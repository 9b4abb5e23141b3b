"""Draws the cases of sweeps that the quick tests run, and sets hypothesis's number of examples.

`FEDTLU_TEST_PROFILE` is `quick` (default) or `full`. `FEDTLU_TEST_SEED` decides all draws of a session. If
it is not set, it is drawn here, and the processes of pytest-xdist inherit it. With the same seed,
`-m "not slow"` and `-m slow` together run every case.
"""

import os
import random
import secrets
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import settings

T = TypeVar("T")

SEED = int(os.environ.setdefault("FEDTLU_TEST_SEED", str(secrets.randbelow(2**31))))
PROFILE = os.environ.setdefault("FEDTLU_TEST_PROFILE", "quick")
FULL = {"quick": False, "full": True}[PROFILE]
ALL = 10**9

for name, most in (("quick", 25), ("full", 100)):
    settings.register_profile(name, deadline=None, max_examples=most)
settings.load_profile(PROFILE)


def seed() -> int:
    """Prints the session's seed, so that a failing test shows it."""
    print(f"FEDTLU_TEST_SEED={SEED}")
    return SEED


def fresh() -> np.random.Generator:
    """Returns a generator of random input that differs in every session."""
    return np.random.default_rng(seed())


def examples(full: int, **options: Any) -> settings:
    """Makes hypothesis draw so many examples under the full profile, and a quarter under the quick one."""
    return settings(max_examples=full if FULL else max(4, full // 4), **options)


def sample(cases: Sequence[T], count: int) -> list[T]:
    """Draws `count` of the cases by the session's seed, and keeps their order."""
    draws = random.Random(seed())
    return [cases[index] for index in sorted(draws.sample(range(len(cases)), min(count, len(cases))))]


def sampled(count: int) -> list[Any]:
    """Returns the number of cases for a test that runs a sweep itself: `count`, or all in a slow test."""
    return [pytest.param(count, id="sampled"), pytest.param(ALL, id="all", marks=pytest.mark.slow)]


def mark_slow(items: Iterable[pytest.Item]) -> None:
    """Marks cases of tests with `@pytest.mark.sweep(quick=n)` as slow, all but n of each live backend.

    With `backend=...` that backend's cases alone are marked. The n are drawn by the session's seed.
    """
    sweeps: dict[str, list[pytest.Item]] = defaultdict(list)
    for item in items:
        marker = item.get_closest_marker("sweep")
        if marker is not None:
            backend = str(item.callspec.params.get("backend", ""))
            if marker.kwargs.get("backend", "") in backend:
                sweeps[f"{item.nodeid.partition('[')[0]} {backend}"].append(item)
    for test, cases in sweeps.items():
        marker = cases[0].get_closest_marker("sweep")
        assert marker is not None
        order = random.Random(f"{SEED} {test}").sample(cases, len(cases))
        for case in order[marker.kwargs["quick"] :]:
            case.add_marker("slow")
