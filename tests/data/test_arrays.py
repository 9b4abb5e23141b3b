"""Federations in .npy files: any size opens immediately, and clients are checked when they are drawn."""

import os
import sys
import time
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from support.sampling import examples, fresh

from fedtlu_fast import InputError, simulate
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.sources.arrays import PIECE, PIECES, load_arrays

FEATURES, LABELS, SAMPLES, CLIENTS = 3, 4, 50, 5
WINDOW, VOCABULARY = 6, 20
STARTS = np.array([0, 7, 12, 20, 21, 30])
HELD_STARTS = np.array([0, 3, 3, 8, 9, 11])


def index(draws):
    """Rows for `STARTS` and `HELD_STARTS`, in no order."""
    return {
        "train_rows": draws.permutation(SAMPLES)[: STARTS[-1]],
        "train_starts": STARTS,
        "held_rows": draws.permutation(SAMPLES)[: HELD_STARTS[-1]],
        "held_starts": HELD_STARTS,
    }


def classification(draws):
    return {
        "features": draws.standard_normal((SAMPLES, FEATURES), dtype=np.float32),
        "labels": draws.integers(0, LABELS, SAMPLES),
        "test_features": draws.standard_normal((8, FEATURES), dtype=np.float32),
        "test_labels": draws.integers(0, LABELS, 8),
        **index(draws),
    }


def language(draws):
    return {
        "samples": draws.integers(0, VOCABULARY, (SAMPLES, WINDOW + 1)),
        "test_samples": draws.integers(0, VOCABULARY, (8, WINDOW + 1)),
        **index(draws),
    }


@pytest.fixture
def arrays():
    return classification(fresh())


@pytest.fixture
def write(tmp_path):
    def written(arrays, name="federation"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for own, array in arrays.items():
            np.save(folder / f"{own}.npy", array)
        return folder

    return written


def settings_of(folder, **over):
    tree = {
        "task": "classification",
        "clients": CLIENTS,
        "cohort": 2,
        "rounds": 2,
        "data": {
            "source": f"arrays:{folder}",
            "classes": LABELS,
            "window": WINDOW,
            "vocabulary": VOCABULARY,
        },
        "model": {"hidden": [5], "layers": 2, "width": 8, "heads": 2},
        "selection": {"selector": "full"},
        "execution": {"executor": "serial"},
    }
    return parse_config({**tree, **over})


# --- what is there is what was written -----------------------------------------------------------


def test_clients_hold_the_rows_that_were_written(arrays, write):
    population = load_arrays(write(arrays), "classification", LABELS)
    assert population.clients == CLIENTS
    for client in range(CLIENTS):
        for held, rows, starts in (
            (population.train(client), arrays["train_rows"], STARTS),
            (population.held_out(client), arrays["held_rows"], HELD_STARTS),
        ):
            own = rows[starts[client] : starts[client + 1]]
            features, labels = held.all()
            assert np.array_equal(features.numpy(), arrays["features"][own])
            assert np.array_equal(labels.numpy(), arrays["labels"][own])
    assert np.array_equal(population.test[0].numpy(), arrays["test_features"])
    assert np.array_equal(population.test[1].numpy(), arrays["test_labels"])


def test_tokens_make_a_federation_of_one_tensor(write):
    arrays = language(fresh())
    data = load_federation(settings_of(write(arrays), task="language_modelling"))
    assert (data.inputs, data.outputs) == (WINDOW, VOCABULARY)
    (samples,) = data.population.train(2).all()
    assert np.array_equal(samples.numpy(), arrays["samples"][arrays["train_rows"][12:20]])


@pytest.mark.parametrize("make", [classification, language], ids=["classification", "language_modelling"])
def test_a_run_goes_from_files_to_a_result(write, make):
    folder = write(make(np.random.default_rng(3)))
    name = "classification" if make is classification else "language_modelling"
    summary = simulate(settings_of(folder, task=name)).summary
    assert summary["rounds"] == 2
    assert summary["failed_clients"] == summary["refused_updates"] == 0
    assert np.isfinite(summary["test_loss"])
    assert np.isfinite(summary["local_loss"])


def test_other_files_in_the_folder_do_not_matter(arrays, write):
    folder = write(arrays)
    before = load_arrays(folder, "classification", LABELS).fingerprint
    (folder / "old.npy").mkdir()
    (folder / "notes.npy").write_bytes(b"mine")
    assert load_arrays(folder, "classification", LABELS).fingerprint == before


def test_without_held_rows_no_client_has_a_test_of_its_own(arrays, write):
    del arrays["held_rows"], arrays["held_starts"]
    population = load_arrays(write(arrays), "classification", LABELS)
    assert [len(population.held_out(client)) for client in range(CLIENTS)] == [0] * CLIENTS
    assert simulate(settings_of(write(arrays))).summary["local_loss"] is None


def test_own_tests_may_be_empty(arrays, write):
    arrays |= {"held_rows": np.empty(0, np.int64), "held_starts": np.zeros(CLIENTS + 1, np.int64)}
    population = load_arrays(write(arrays), "classification", LABELS)
    assert [len(population.held_out(client)) for client in range(CLIENTS)] == [0] * CLIENTS


def test_a_federation_may_hold_more_clients_than_take_part(arrays, write):
    data = load_federation(settings_of(write(arrays), clients=3))
    assert data.population.clients == CLIENTS


def test_moved_to_a_device_clients_are_still_checked(arrays, write):
    arrays["train_rows"][0] = SAMPLES
    population = load_arrays(write(arrays), "classification", LABELS).to("cpu")
    with pytest.raises(InputError):
        population.train(0)


# --- size costs nothing --------------------------------------------------------------------------


def sparse(path, shape, dtype, last):
    """Writes a sparse .npy file, all zeros except its last number, which takes no room on the disk."""
    with path.open("wb") as file:
        header = {"shape": shape, "fortran_order": False, "descr": np.dtype(dtype).str}
        np.lib.format.write_array_header_1_0(file, header)
        at = file.tell() + (int(np.prod(shape)) - 1) * np.dtype(dtype).itemsize
        file.truncate(at)
        file.seek(at)
        file.write(np.asarray(last, dtype).tobytes())


@pytest.mark.parametrize("held", [False, True])
def test_ten_million_clients_open_immediately_and_are_not_read(arrays, write, held):
    clients = 10_000_000
    for name in ("held_rows", "held_starts"):
        del arrays[name]
    folder = write(arrays)
    rows = len(arrays["train_rows"])
    sparse(folder / "train_starts.npy", (clients + 1,), np.int64, rows)
    if held:
        np.save(folder / "held_rows.npy", arrays["train_rows"])
        sparse(folder / "held_starts.npy", (clients + 1,), np.int64, rows)
    tracemalloc.start()
    start = time.perf_counter()
    population = load_arrays(folder, "classification", LABELS)
    taken, (_, peak) = time.perf_counter() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    last = population.train(clients - 1)
    assert population.clients == clients
    assert last.rows.tolist() == arrays["train_rows"].tolist()
    assert len(population.held_out(0)) == 0
    # The index has 80 MB: reading it takes about 20 ms, its whole digest 200 ms, and a check by NumPy more.
    assert taken < 0.5
    assert peak < 2**21
    if sys.platform.startswith("linux"):
        assert not resident(population.shares.starts)


def resident(array):
    """Tells whether more than a few pages of a mapped array were read, pages of holes included."""
    address = array.ctypes.data
    with open("/proc/self/smaps") as file:
        inside = False
        for line in file:
            first = line.split()[0]
            if "-" in first and not first.endswith(":"):
                begin, end = (int(part, 16) for part in first.split("-"))
                inside = begin <= address < end
            elif inside and first == "Rss:":
                return int(line.split()[1]) > 1024
    raise AssertionError("the array is not mapped")


# --- the fingerprint -----------------------------------------------------------------------------


@examples(40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_byte_of_a_small_file_changes_the_fingerprint(tmp_path, data):
    folder = tmp_path / "byte"
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    arrays = classification(rng)
    # 160 kB, which is less than all pieces together, and more than one of them.
    arrays["features"] = rng.standard_normal((40_000 // FEATURES, FEATURES), dtype=np.float32)
    arrays["labels"] = rng.integers(0, LABELS, len(arrays["features"]))
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    before = load_arrays(folder, "classification", LABELS).fingerprint
    name = data.draw(st.sampled_from(["features", "train_rows", "test_features", "held_rows"]))
    path = folder / f"{name}.npy"
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(128, len(content) - 1))
    # The lowest bit of a number, so that the row still exists.
    content[place - place % (4 if "features" in name else 8)] ^= 1
    path.write_bytes(content)
    assert load_arrays(folder, "classification", LABELS).fingerprint != before


def test_pieces_of_a_large_file_from_end_to_end_change_the_fingerprint(arrays, write):
    rows = 2 * PIECES * PIECE // (4 * FEATURES)
    arrays["features"] = np.zeros((rows, FEATURES), np.float32)
    arrays["labels"] = np.zeros(rows, np.int64)

    def fingerprint():
        return load_arrays(write(arrays), "classification", LABELS).fingerprint

    prints = [fingerprint()]
    for row in (0, -1):
        arrays["features"][row] = 1
        prints.append(fingerprint())
    arrays["features"], arrays["labels"] = arrays["features"][:-1], arrays["labels"][:-1]
    prints.append(fingerprint())
    assert len(set(prints)) == 4


def test_the_fingerprint_depends_on_contents_and_not_on_paths(arrays, write):
    here, there = write(arrays, "here"), write(arrays, "there")
    os.utime(there / "labels.npy", (1, 1))
    prints = {load_arrays(folder, "classification", LABELS).fingerprint for folder in (here, there)}
    assert len(prints) == 1
    (there / "held_rows.npy").unlink()
    (there / "held_starts.npy").unlink()
    assert load_arrays(there, "classification", LABELS).fingerprint not in prints


# --- what is wrong with the files is said at once ------------------------------------------------

CHANGES = {
    "type of features": ("features", lambda a: a.astype(np.float64), "float64", "float32 of 2"),
    "type of labels": ("labels", lambda a: a.astype(np.int32), "int32", "int64 of 1"),
    "type of rows": ("train_rows", lambda a: a.astype(np.float64), "float64", "int64 of 1"),
    "order of bytes": ("train_starts", lambda a: a.astype(">i8"), ">i8", "int64 of 1"),
    "dimensions of features": ("features", lambda a: a[:, 0], r"\(50,\)", "of 2 dimension"),
    "dimensions of labels": ("labels", lambda a: a[:, None], r"\(50, 1\)", "of 1 dimension"),
    "a single number": ("train_starts", lambda a: a[0], r"int64 \(\)", "of 1 dimension"),
    "length of labels": ("labels", lambda a: a[:-1], "49 labels", "50"),
    "length of test labels": ("test_labels", lambda a: a[:-1], "7 labels", "8"),
    "first start": ("train_starts", lambda a: a + 1, "1 to 31", "from 0 to 30"),
    "last start, less": ("train_starts", lambda a: a[:-1], "0 to 21", "from 0 to 30"),
    "last start, more": ("train_starts", lambda a: np.append(a, 31), "0 to 31", "from 0 to 30"),
    "no start": ("train_starts", lambda a: a[:0], "nothing", "from 0 to 30"),
    "other clients in the tests": ("held_starts", lambda a: np.append(a, 11), "6 clients", "5, as in train"),
    "width of the test": ("test_features", lambda a: a[:, :-1], r"\(8, 2\)", "of 3, as in features.npy"),
    "no columns": ("features", lambda a: a[:, :0], r"\(50, 0\)", "rows of 1 number or more"),
    "an empty test": ("test_features", lambda a: a[:0], r"\(0, 3\)", "one row or more"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_of_another_type_is_refused_with_both_types(arrays, write, change):
    name, made, given, expected = CHANGES[change]
    arrays[name] = made(arrays[name])
    if change == "an empty test":
        arrays["test_labels"] = arrays["test_labels"][:0]
    with pytest.raises(InputError, match=f"{name}.npy: got .*{given}.*; expected .*{expected}"):
        load_arrays(write(arrays), "classification", LABELS)


@pytest.mark.parametrize("name", ["features", "labels", "train_rows", "train_starts", "test_labels"])
def test_a_missing_file_is_named(arrays, write, name):
    folder = write(arrays)
    (folder / f"{name}.npy").unlink()
    with pytest.raises(InputError, match=f"{name}.npy'; expected a .npy file; .*No such file"):
        load_arrays(folder, "classification", LABELS)


@pytest.mark.parametrize("name", ["held_rows", "held_starts"])
def test_an_incomplete_index_of_own_tests_is_refused(arrays, write, name):
    folder = write(arrays)
    (folder / f"{name}.npy").unlink()
    with pytest.raises(InputError, match=f"{name}.npy"):
        load_arrays(folder, "classification", LABELS)


def test_no_client_at_all_is_refused(arrays, write):
    arrays |= {"train_rows": np.empty(0, np.int64), "train_starts": np.zeros(1, np.int64)}
    with pytest.raises(InputError, match=r"train_starts.npy: got 'no client'"):
        load_arrays(write(arrays), "classification", LABELS)


def test_a_pipe_in_place_of_a_file_is_refused_without_waiting(arrays, write):
    folder = write(arrays)
    (folder / "held_rows.npy").unlink()
    os.mkfifo(folder / "held_rows.npy")
    with pytest.raises(InputError, match=r"held_rows\.npy'; expected a file, no folder, device or pipe"):
        load_arrays(folder, "classification", LABELS)


class Bomb:
    """Records that it was unpickled."""

    def __reduce__(self):
        return os.mkdir, ("unpickled",)


def test_a_pickled_array_is_refused_and_not_opened(arrays, write, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write(arrays)
    np.save(folder / "labels.npy", np.array([Bomb()] * SAMPLES, dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match=r"labels.npy'; expected a .npy file; .*Python objects"):
        load_arrays(folder, "classification", LABELS)
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("name", ["features", "labels", "train_rows", "train_starts", "test_features"])
def test_a_file_cut_short_is_refused(arrays, write, name):
    folder = write(arrays)
    path = folder / f"{name}.npy"
    whole = path.read_bytes()
    for length in (0, 5, 40, 128, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=f"{name}.npy"):
            load_arrays(folder, "classification", LABELS)
    path.write_bytes(whole)
    load_arrays(folder, "classification", LABELS)


def test_files_that_are_not_arrays_are_refused(arrays, write):
    folder = write(arrays)
    path = folder / "labels.npy"
    with path.open("wb") as file:
        np.savez(file, labels=arrays["labels"])
    with pytest.raises(InputError, match=r"labels\.npy"):
        load_arrays(folder, "classification", LABELS)
    path.write_text("1 2 3\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"labels\.npy"):
        load_arrays(folder, "classification", LABELS)
    path.unlink()
    path.mkdir()
    with pytest.raises(InputError, match=r"labels\.npy"):
        load_arrays(folder, "classification", LABELS)


@examples(150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_damaged_header_gives_an_input_error_or_arrays_of_the_same_shape(tmp_path, data):
    folder = tmp_path / "damaged"
    folder.mkdir(exist_ok=True)
    for name, array in classification(np.random.default_rng(0)).items():
        np.save(folder / f"{name}.npy", array)
    path = folder / f"{data.draw(st.sampled_from(['features', 'labels', 'train_starts']))}.npy"
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, 127), min_size=1, max_size=3)):
        content[place] = data.draw(st.integers(0, 255) | st.sampled_from(b"()'0123456789,<>"))
    path.write_bytes(content)
    try:
        population = load_arrays(folder, "classification", LABELS)
    except InputError:
        return
    assert population.pool[0].shape == (SAMPLES, FEATURES)
    assert population.clients == CLIENTS


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(InputError, match=r"data.source: got 'arrays:.*nowhere'; expected a directory"):
        load_arrays(tmp_path / "nowhere", "classification", LABELS)


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"clients": 6}, "clients: got 6; expected at most 5, those in"),
        ({"task": "language_modelling"}, "samples.npy"),
        ({"data": {"classes": 3}}, "test.*got 'labels or tokens 0 to 3'; expected numbers from 0 to 2"),
    ],
    ids=["clients", "task", "classes"],
)
def test_settings_that_do_not_fit_the_files_are_refused(arrays, write, over, message):
    arrays["test_labels"][:2] = 0, LABELS - 1
    config = settings_of(write(arrays))
    source = replace(config.data.source, **over.pop("data", {}))
    data = config.data.model_copy(update={"source": source})
    with pytest.raises(InputError, match=message):
        load_federation(config.model_copy(update={**over, "data": data}))


@pytest.mark.parametrize("data", [{"window": 7}, {"vocabulary": 19}], ids=str)
def test_settings_that_do_not_fit_the_tokens_are_refused(write, data):
    arrays = language(fresh())
    arrays["test_samples"][0, 0] = VOCABULARY - 1
    config = settings_of(write(arrays), task="language_modelling")
    with pytest.raises(
        InputError, match=r"window: got 7; expected 6|\d+ to 19'; expected numbers from 0 to 18"
    ):
        load_federation(config.model_copy(update={"data": config.data.model_copy(update=data)}))


# --- what is wrong with one client is said when it is drawn --------------------------------------


def broken(arrays, kind, client):
    """Makes the training samples of client 1 or 2 invalid."""
    first = STARTS[client]
    if kind == "a start that decreases":
        arrays["train_starts"] = STARTS.copy()
        arrays["train_starts"][client + 1] = first - 1
    elif kind == "a start beyond the rows":
        arrays["train_starts"] = STARTS.copy()
        arrays["train_starts"][client + 1] = 99
    elif kind == "a negative start":
        arrays["train_starts"] = STARTS.copy()
        arrays["train_starts"][client] = -3
    elif kind == "an empty client":
        arrays["train_starts"] = STARTS.copy()
        arrays["train_starts"][client + 1] = first
    elif kind == "a row too large":
        arrays["train_rows"][first + 1] = SAMPLES
    elif kind == "a negative row":
        arrays["train_rows"][first + 1] = -1
    elif kind == "a label too large":
        arrays["labels"][arrays["train_rows"][first]] = LABELS
    elif kind == "the label that torch ignores":
        arrays["labels"][arrays["train_rows"][first]] = -100
    return arrays


KINDS = {
    "a start that decreases": "train_starts 7 and 6'; expected numbers from 0 to 30",
    "a start beyond the rows": "train_starts 7 and 99'; expected numbers from 0 to 30",
    "a negative start": "train_starts -3 and 12'; expected numbers from 0 to 30",
    "an empty client": "no train_rows'; expected one or more",
    "a row too large": r"train_rows \d+ to 50'; expected rows from 0 to 49",
    "a negative row": r"train_rows -1 to \d+'; expected rows from 0 to 49",
    "a label too large": r"labels or tokens \d to 4'; expected numbers from 0 to 3",
    "the label that torch ignores": r"labels or tokens -100 to \d'; expected numbers from 0 to 3",
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_invalid_client_is_refused_when_it_is_drawn(arrays, write, kind):
    population = load_arrays(write(broken(arrays, kind, 1)), "classification", LABELS)
    with pytest.raises(InputError, match=rf"clients\[1\]: got '{KINDS[kind]}"):
        population.train(1)
    assert len(population.train(3)) == 1, "the others can be drawn"


@pytest.mark.parametrize("kind", ["a row too large", "a negative row"])
def test_a_clients_own_test_is_checked_too(arrays, write, kind):
    arrays["held_rows"][8] = SAMPLES if kind == "a row too large" else -2
    population = load_arrays(write(arrays), "classification", LABELS)
    with pytest.raises(InputError, match=r"clients\[3\]: got 'held_rows"):
        population.held_out(3)
    assert len(population.train(3)) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_reports_an_invalid_client_and_goes_on_without_it(arrays, write, kind):
    for name in ("held_rows", "held_starts"):
        del arrays[name]  # so that no client tests on invalid samples
    folder = write(broken(arrays, kind, 1))
    config = settings_of(folder, cohort=CLIENTS, rounds=1, evaluation={"trained_clients": 0})
    execution = config.execution.model_copy(update={"client_errors": "drop"})
    result = simulate(config.model_copy(update={"execution": execution}))
    (row,) = result.metrics
    # A wrong start makes the clients on both sides of it invalid.
    allowed = {"1", "0", "2"} if "start" in kind else {"1"}
    assert "1" in row["failed"]
    assert set(row["failed"]) <= allowed
    assert all("InputError" in reason for reason in row["failed"].values())
    assert torch.isfinite(result.params).all()
