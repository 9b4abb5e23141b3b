"""A federation that sorts texts: it learns, and who trains does not change the bits."""

import pytest
from support.federations import left

from fedtlu_fast import simulate
from fedtlu_fast.config.settings import parse_config


def settings(folder, **over):
    words = {"sport": "ball run win", "food": "bread salt oil", "art": "paint wood brush"}
    folder.mkdir(exist_ok=True)
    rows = "".join(f"{label}\tthe {text}\n" for label, text in words.items()) * 20
    (folder / "en.tsv").write_text("label\ttext\n" + rows)
    base = {
        "task": "text_classification",
        "rounds": 5,
        "partition": "iid",
        "clients": 5,
        "cohort": 3,
        "data": {"source": f"texts:{folder}", "test_fraction": 0.2},
        "model": {"layers": 2, "width": 8, "heads": 2},
        "training": {"optimizer": "adamw", "lr": 0.02, "local_steps": 8},
        "selection": {"selector": "fedtlu", "keep": 1},
        "warmup_rounds": 4,
        "execution": {"executor": "serial", "clients_per_batch": 1},
    }
    return parse_config({**base, **over})


def test_it_learns_and_who_trains_does_not_change_the_bits(tmp_path):
    found = simulate(settings(tmp_path / "texts"), tmp_path / "serial").summary
    assert found["test_accuracy"] > 0.9
    assert set(found["test_f1"]) == {"art", "food", "sport"}
    processes = {"executor": "processes", "workers": 2, "clients_per_batch": 1}
    simulate(settings(tmp_path / "texts", execution=processes), tmp_path / "processes")
    assert left(tmp_path / "serial") == left(tmp_path / "processes")
    together = simulate(
        settings(tmp_path / "texts", execution={"executor": "vectorized", "clients_per_batch": 3})
    )
    assert together.summary["test_loss"] == pytest.approx(found["test_loss"], rel=0.02, abs=1e-3)
