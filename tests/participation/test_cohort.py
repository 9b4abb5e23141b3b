from collections import Counter

import pytest

from fedtlu_fast.participation.cohort import sample_cohort


def test_cohort_holds_different_clients_of_the_federation() -> None:
    for index in range(200):
        cohort = sample_cohort(0, index, 17, 5)
        assert len(set(cohort)) == 5
        assert set(cohort) <= set(range(17))
        assert all(type(client) is int for client in cohort)


def test_cohort_is_a_pure_function_of_seed_and_round() -> None:
    assert sample_cohort(3, 7, 100, 10) == sample_cohort(3, 7, 100, 10)
    others = [sample_cohort(4, 7, 100, 10), sample_cohort(3, 8, 100, 10)]
    assert sample_cohort(3, 7, 100, 10) not in others


def test_cohort_of_all_clients_is_all_of_them() -> None:
    assert sorted(sample_cohort(0, 1, 6, 6)) == list(range(6))


def test_clients_and_places_are_drawn_uniformly() -> None:
    cohorts = [sample_cohort(1, index, 10, 3) for index in range(3000)]
    drawn = Counter(client for cohort in cohorts for client in cohort)
    first = Counter(cohort[0] for cohort in cohorts)
    # Binomial: 900 +- 25 and 300 +- 16; five standard deviations, and the seed is fixed.
    assert all(abs(drawn[client] - 900) < 126 for client in range(10))
    assert all(abs(first[client] - 300) < 83 for client in range(10))


def test_drawing_one_client_of_millions_makes_no_list_of_all() -> None:
    assert all(0 <= client < 5_000_000 for client in sample_cohort(0, 1, 5_000_000, 3))


@pytest.mark.parametrize("size", [1, 4])
def test_order_of_averaging_is_drawn_too(size: int) -> None:
    orders = {tuple(sample_cohort(0, index, 4, size)) for index in range(300)}
    assert len(orders) == (4 if size == 1 else 24)
