"""A federation in a directory of .npy files, mapped into memory: any number of clients costs nothing to open.

samples.npy        [N, window + 1] token ids (language modelling), or
features.npy       [N, F] float32 and
labels.npy         [N] integers from 0 (classification)
train_rows.npy     [M] int64, the rows that the clients train on, client after client
train_starts.npy   [C + 1] int64: client c holds train_rows[train_starts[c]:train_starts[c + 1]]
held_rows.npy, held_starts.npy   the same for the clients' own tests (optional)
test_samples.npy, or test_features.npy and test_labels.npy   the global test
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.data.population import ArrayPopulation, Batch, Shares, as_tensor
from fedtlu_fast.errors import InputError

PIECES, PIECE = 64, 4096
"""Of every file so many pieces of so many bytes are read to tell it from another."""
PARTS = {"language_modelling": ("samples",), "classification": ("features", "labels")}


def load_arrays(folder: Path, task: str) -> ArrayPopulation:
    """Opens such a directory; nothing is read but the ends of the index and a few pieces of every file.

    Raises:
        InputError: a file is missing or of the wrong shape or type.
    """
    if not folder.is_dir():
        raise InputError("data.source", f"arrays:{folder}", "a directory that exists")
    train = _shares(folder, "train")
    if not len(train):
        raise InputError(str(folder / "train_starts.npy"), "no client", "two or more numbers")
    held = _shares(folder, "held") if (folder / "held_rows.npy").exists() else _none(len(train))
    if len(held) != len(train):
        raise InputError(
            str(folder / "held_starts.npy"), f"{len(held)} clients", f"{len(train)}, as in train_starts.npy"
        )
    return ArrayPopulation(
        pool=_batch(folder, "", task),
        shares=train,
        own_tests=held,
        test=_batch(folder, "test_", task),
        fingerprint=_fingerprint(folder),
    )


def check_client(population: ArrayPopulation, client: int) -> None:
    """Makes sure that a client's index fits the samples; of the clients drawn, not of all there are.

    Raises:
        InputError: its share is empty, or it names rows that are not there.
    """
    rows, size = population.shares[client], len(population.pool[0])
    if not len(rows):
        raise InputError(f"clients[{client}]", "no samples", "one or more to train on")
    for own in (rows, population.own_tests[client]):
        if len(own) and not 0 <= own.min() <= own.max() < size:
            raise InputError(
                f"clients[{client}]", f"rows {own.min()} to {own.max()}", f"rows from 0 to {size - 1}"
            )


def _shares(folder: Path, name: str) -> Shares:
    rows, starts = (_open(folder / f"{name}_{part}.npy", 1, np.int64) for part in ("rows", "starts"))
    path = folder / f"{name}_starts.npy"
    if not len(starts) or starts[0] != 0 or starts[-1] != len(rows):
        given = f"{starts[0]} to {starts[-1]}" if len(starts) else "nothing"
        raise InputError(str(path), given, f"numbers from 0 to {len(rows)}, the rows there are")
    return Shares(rows, starts)


def _none(clients: int) -> Shares:
    return Shares(np.empty(0, np.int64), np.zeros(clients + 1, np.int64))


def _batch(folder: Path, prefix: str, task: str) -> Batch:
    if task == "language_modelling":
        samples = _open(folder / f"{prefix}samples.npy", 2, np.int64)
        return (as_tensor(samples),)
    features = _open(folder / f"{prefix}features.npy", 2, np.float32)
    labels = _open(folder / f"{prefix}labels.npy", 1, np.int64)
    if len(features) != len(labels):
        raise InputError(str(folder / f"{prefix}labels.npy"), f"{len(labels)} labels", f"{len(features)}")
    return as_tensor(features), as_tensor(labels)


def _open(path: Path, dimensions: int, dtype: Any) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise InputError("data.source", str(path), f"a .npy file; {error}") from None
    if array.ndim != dimensions or array.dtype != dtype:
        raise InputError(
            str(path), f"{array.dtype} {array.shape}", f"{np.dtype(dtype)} of {dimensions} dimension(s)"
        )
    # As a plain array: every slice of a memmap costs microseconds for what is not used here.
    return np.asarray(array)


def _fingerprint(folder: Path) -> str:
    """SHA-256 over names, sizes and evenly spaced pieces: reading terabytes would take hours."""
    found = hashlib.sha256()
    for path in sorted(folder.glob("*.npy")):
        size = path.stat().st_size
        found.update(f"{path.name}/{size}/".encode())
        with path.open("rb") as file:
            for start in sorted({round(at) for at in np.linspace(0, max(0, size - PIECE), PIECES)}):
                file.seek(start)
                found.update(file.read(PIECE))
    return found.hexdigest()
