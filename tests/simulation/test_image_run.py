"""A federation that looks at images: it learns, and who trains does not change the bits."""

import numpy as np
import pytest
from support.federations import left

from fedtlu_fast import simulate
from fedtlu_fast.config.settings import load_config

SMALL = ["clients=20", "cohort=8", "rounds=4", "warmup_rounds=2", "layers=2", "width=8", "local_every=2"]


def settings(*over):
    return load_config("digits", overrides=[*SMALL, *over])


def test_it_learns_and_tells_accuracy_and_f1():
    found = simulate(
        settings("selector=full", "rounds=12", "executor=vectorized", "clients_per_batch=8")
    ).summary
    assert found["test_accuracy"] > 0.7
    assert set(found["test_f1"]) == set("0123456789")
    assert found["test_macro_f1"] == pytest.approx(np.mean(list(found["test_f1"].values())))


def test_who_trains_does_not_change_the_bits(tmp_path):
    simulate(settings("executor=serial"), tmp_path / "serial")
    simulate(settings("executor=processes", "workers=2"), tmp_path / "processes")
    assert left(tmp_path / "serial") == left(tmp_path / "processes")
    together = simulate(settings("executor=vectorized", "clients_per_batch=8")).summary
    alone = left(tmp_path / "serial")["summary"][0]
    assert together["test_loss"] == pytest.approx(alone["test_loss"], rel=1e-3)


def test_buffers_of_batch_normalisation_travel():
    found = simulate(settings("norm=batch", "executor=serial")).summary
    assert np.isfinite(found["test_loss"])
    assert found["refused_updates"] == 0
