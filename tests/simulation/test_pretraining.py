"""The start that every seed and arm shares: trained once, on samples that no client holds."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from support.federations import tiny, write_text

from fedtlu_fast import InputError, simulate
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.simulation import pretraining


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FEDTLU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path / "text.txt")


def with_start(text, **over):
    return tiny(text, **{"pretraining": {"epochs": 2, "share": 0.3, "batch_size": 8}, **over})


def start_of(config):
    trainer = make_parts(config).trainer
    return trainer.layout.flatten(trainer.task.model)


def test_no_client_holds_what_is_set_aside(text, cache):
    data = load_federation(with_start(text))
    assert data.public is not None
    population = data.population
    held = [population.shares.rows, population.own_tests.rows]
    everything = np.concatenate([*held, data.public.rows])
    assert sorted(everything) == list(range(len(population.pool[0]))), "and nothing is lost"
    assert len(data.public) == round(0.3 * len(everything))
    other = load_federation(with_start(text, seed=5))
    assert np.array_equal(other.public.rows, data.public.rows)
    assert not np.array_equal(other.population.shares.rows, population.shares.rows)


def test_without_it_everything_is_as_before(text):
    data = load_federation(tiny(text))
    assert data.public is None
    assert torch.equal(start_of(tiny(text)), start_of(tiny(text, pretraining={"lr": 0.5})))


def test_seeds_and_selectors_begin_alike_and_the_start_is_trained_once(text, cache, monkeypatch):
    first = start_of(with_start(text))
    assert len(list(cache.iterdir())) == 1
    assert not torch.equal(first, start_of(tiny(text)))

    def fail(*args):
        raise AssertionError("trained again")

    with monkeypatch.context() as patch:
        patch.setattr(pretraining.LocalTrainer, "train", fail)
        assert torch.equal(start_of(with_start(text)), first)
    (kept,) = cache.iterdir()
    content = kept.read_bytes()
    for place in (len(content) - 3, content.index(b"params"), content.index(b"F32")):
        kept.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        assert torch.equal(start_of(with_start(text)), first), "a changed bit: trained again"
    assert kept.read_bytes() == content
    assert [path.name for path in cache.iterdir()] == [kept.name]
    assert torch.equal(start_of(with_start(text, seed=7)), first)
    assert torch.equal(start_of(with_start(text, selection={"selector": "random"})), first)


def test_other_settings_or_data_are_another_start(text, cache, tmp_path):
    starts = [
        start_of(with_start(text)),
        start_of(with_start(text, pretraining={"epochs": 1, "share": 0.3})),
        start_of(with_start(text, pretraining={"epochs": 2, "share": 0.3, "batch_size": 8, "seed": 1})),
        start_of(with_start(write_text(tmp_path / "other.txt", seed=9))),
    ]
    assert len(list(cache.iterdir())) == 4
    for index, one in enumerate(starts):
        assert not any(torch.equal(one, other) for other in starts[:index])


def test_it_learns_what_was_set_aside(text, cache):
    config = with_start(text, pretraining={"epochs": 20, "lr": 0.02, "share": 0.3})
    losses = []
    for start in (False, True):
        task = make_parts(config, start=start).trainer.task
        losses.append(float(task.evaluate(load_federation(config).public.all(), 16).loss))
    assert losses[1] < losses[0] - 0.5


def test_a_damaged_file_is_trained_anew(text, cache):
    first = start_of(with_start(text))
    (path,) = cache.iterdir()
    path.write_bytes(b"no tensors")
    assert torch.equal(start_of(with_start(text)), first)
    assert path.stat().st_size > 100


@pytest.mark.parametrize("damage", ["another dtype", "without a digest"])
def test_a_changed_file_is_trained_anew(text, cache, damage):
    first = start_of(with_start(text))
    (path,) = cache.iterdir()
    whole, kept = path.read_bytes(), load_file(path)
    if damage == "another dtype":
        save_file({name: tensor.double() for name, tensor in kept.items()}, path)
    else:
        save_file({**kept, "params": kept["params"] + 1}, path)
    assert torch.equal(start_of(with_start(text)), first)
    assert path.read_bytes() == whole


def no_home(monkeypatch):
    def refuse():
        raise RuntimeError("Could not determine home directory.")

    for name in ("FEDTLU_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", refuse)


def full_disk(monkeypatch):
    def write(tensors, path, metadata):
        Path(path).write_bytes(b"half of it")
        raise SafetensorError("No space left on device")

    monkeypatch.setattr(pretraining, "save_file", write)


@pytest.mark.parametrize("trouble", ["no home", "not writable", "a file", "full disk"])
def test_a_start_that_cannot_be_kept_is_used_all_the_same(text, cache, monkeypatch, caplog, trouble):
    first = start_of(with_start(text))
    (path,) = cache.iterdir()
    path.unlink()
    if trouble == "no home":
        no_home(monkeypatch)
    elif trouble == "not writable":
        monkeypatch.setenv("FEDTLU_CACHE", "/proc/1/cache")
    elif trouble == "a file":
        path.touch()
        monkeypatch.setenv("FEDTLU_CACHE", str(path / "cache"))
    else:
        full_disk(monkeypatch)
    caplog.clear()
    assert torch.equal(start_of(with_start(text)), first)
    (line,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "the start is not kept" in line
    assert "FEDTLU_CACHE" in line
    assert trouble == "a file" or list(cache.iterdir()) == []


def test_runs_that_keep_the_same_start_do_not_meet(tmp_path, caplog):
    path, start = tmp_path / "cache" / "start-0.safetensors", (torch.randn(10**5), torch.randn(3))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: pretraining._keep(path, *start), range(40)))
    found = pretraining._read(path, *start)
    assert torch.equal(found[0], start[0])
    assert list(path.parent.iterdir()) == [path]
    assert caplog.records == []


def test_a_run_that_trains_its_start_and_one_that_finds_it_are_alike(text, cache):
    found = [simulate(with_start(text)).summary["params_sha256"] for _ in range(2)]
    assert found[0] == found[1]
    resumed = simulate(
        with_start(text, execution={"executor": "processes", "workers": 2, "clients_per_batch": 1})
    )
    assert resumed.summary["params_sha256"] == found[0]


def test_a_start_that_diverges_is_an_error(text, cache):
    with pytest.raises(InputError, match=r"pretraining.lr: got 1e\+30"):
        start_of(with_start(text, pretraining={"epochs": 3, "optimizer": "sgd", "lr": 1e30}))
    assert not cache.exists() or not list(cache.iterdir())


def test_clients_by_rule_have_nothing_to_set_aside(cache):
    config = tiny("unused", task="classification", data={"source": "synthetic"}, pretraining={"epochs": 1})
    with pytest.raises(
        InputError, match=r"pretraining.epochs: got 1.0; expected 0 with data.source=synthetic"
    ):
        load_federation(config)
