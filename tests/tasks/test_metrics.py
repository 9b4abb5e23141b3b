"""Figures of a test: means over predictions, hits, and F1."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast.tasks.metrics import Evaluation, tally

LABELS = ("A", "B", "C", "D")


def test_means_are_over_predictions_and_not_over_samples():
    losses, counts, hits = (
        torch.tensor([1.0, 4.0, 0.0]).double(),
        torch.tensor([3, 1, 0]),
        torch.tensor([3, 0, 0]),
    )
    found = Evaluation(losses, counts, {"accuracy": hits})
    assert found.loss.item() == pytest.approx(7 / 4)
    assert found.means["accuracy"].item() == 0.75
    parts = found.split([2, 1])
    assert [part.loss.item() for part in parts] == [pytest.approx(7 / 4), 0.0]
    assert [part.means["accuracy"].item() for part in parts] == [0.75, 0.0], "no NaN where there is nothing"
    assert Evaluation(losses, counts).means == {}
    assert Evaluation(losses, counts).split([1, 2])[0].means == {}


@given(st.lists(st.floats(0, 30), min_size=1, max_size=200), st.integers(1, 50))
def test_with_equal_counts_the_mean_has_the_bits_of_the_plain_mean(losses, count):
    values = torch.tensor(losses, dtype=torch.float64)
    assert torch.equal(Evaluation(values, torch.full((len(losses),), count)).loss, values.mean())


@examples(50)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=60))
def test_f1_is_the_harmonic_mean_of_precision_and_recall(pairs):
    truths, chosens = torch.tensor(pairs).T
    found = Evaluation(torch.zeros(1), torch.ones(1), {}, tally(truths, chosens, 4), LABELS).f1()
    assert set(found) == {LABELS[code] for pair in pairs for code in pair}
    for label, score in found.items():
        code = LABELS.index(label)
        true = sum(pair == (code, code) for pair in pairs)
        precision = true / max(1, sum(chosen == code for _, chosen in pairs))
        recall = true / max(1, sum(truth == code for truth, _ in pairs))
        assert score == pytest.approx(2 * precision * recall / (precision + recall) if true else 0.0)


def test_no_f1_without_tallies():
    assert Evaluation(torch.zeros(1), torch.ones(1)).f1() is None


def test_tallies_of_many_labels_take_little_memory():
    """A table of all labels by all labels would take 80 GB."""
    many = 100_000
    found = tally(torch.tensor([0, many - 1, 5]), torch.tensor([0, 5, 5]), many)
    assert found.shape == (3, many)
    assert found[:, 5].tolist() == [1, 1, 2]
