"""Reads a federation from a directory of .npy files, which are mapped into memory and not read at the start.

The directory holds these files:

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
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.data.federated import FederatedData
from fedtlu_fast.data.population import ArrayPopulation, Batch, Indices, Samples, Shares, as_tensor
from fedtlu_fast.data.reading import check_file
from fedtlu_fast.data.sources.source import PathSource, TokenSource, VectorSource
from fedtlu_fast.data.splits import Origin, announce
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part

FILES = tuple(
    f"{name}.npy"
    for name in (
        *("samples", "features", "labels", "test_samples", "test_features", "test_labels"),
        *("train_rows", "train_starts", "held_rows", "held_starts"),
    )
)
PIECES, PIECE = 64, 4096
"""Number and size in bytes of the pieces of a file that enter its fingerprint."""


@dataclass(frozen=True)
class MappedPopulation(ArrayPopulation):
    """The clients of a directory of .npy files.

    A client's rows are checked when it is first drawn, because checking all clients at the start takes long.

    Attributes:
        outputs: number of labels or token ids.
    """

    outputs: int

    @cached_property
    def _sound(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which clients' shares and own tests have been checked; pages that nobody touches take no memory."""
        return np.zeros(self.clients, np.bool_), np.zeros(self.clients, np.bool_)

    def train(self, client: int) -> Samples:
        """See `Population`.

        Raises:
            InputError: the client has no training rows, or its rows or labels are out of range.
        """
        if not self._sound[0][client]:
            self._check("train", self.shares, client)
            if not len(self.shares[client]):
                raise InputError(f"clients[{client}]", "no train_rows", "one or more to train on")
            self._sound[0][client] = True
        return super().train(client)

    def held_out(self, client: int) -> Samples:
        """See `Population`.

        Raises:
            InputError: the client's rows or labels are out of range.
        """
        if not self._sound[1][client]:
            self._check("held", self.own_tests, client)
            self._sound[1][client] = True
        return super().held_out(client)

    def _check(self, name: str, shares: Shares, client: int) -> None:
        field, ends = f"clients[{client}]", shares.starts[client : client + 2].tolist()
        if not 0 <= ends[0] <= ends[1] <= len(shares.rows):
            given = f"{name}_starts {ends[0]} and {ends[1]}"
            raise InputError(field, given, f"numbers from 0 to {len(shares.rows)}, the second no smaller")
        rows, size = shares[client], len(self.pool[0])
        if len(rows):
            if not 0 <= rows.min() <= rows.max() < size:
                given = f"{name}_rows {rows.min()} to {rows.max()}"
                raise InputError(field, given, f"rows from 0 to {size - 1}")
            _check_ids(field, self._ids(rows), self.outputs)

    def _ids(self, rows: Indices) -> Tensor | NDArray[np.int64]:
        """Returns the labels or tokens of some rows; NumPy takes a few rows several times faster."""
        ids = self.pool[-1]
        return ids.numpy()[rows] if ids.device.type == "cpu" else ids[torch.from_numpy(rows.copy())]


@part
class Arrays(PathSource, VectorSource, TokenSource):
    """A federation in a directory of .npy files, which are mapped into memory.

    Attributes:
        path: the directory; the top of this module lists its files.
        classes: number of labels, for a classification.
    """

    written = "DIR"
    path: str
    classes: Annotated[int, Field(ge=2)] = 10

    def vectors(self, clients: int, seed: int, local_fraction: float) -> FederatedData:
        """See `VectorSource`. The clients' own tests are those of the files, or empty."""
        population = self._open("classification", clients, self.classes)
        return FederatedData(
            population=population,
            inputs=population.pool[0].shape[1],
            outputs=self.classes,
            origin=_origin(population, ("features", "labels")),
        )

    @override
    def tokens(self, clients: int, window: int, vocabulary: int) -> FederatedData:
        population = self._open("language_modelling", clients, vocabulary)
        inputs = population.pool[0].shape[1] - 1
        if inputs != window:
            raise InputError("data.window", window, f"{inputs}, as in {self._folder}")
        return FederatedData(population, inputs, vocabulary, _origin(population, ("samples",)))

    @property
    def _folder(self) -> Path:
        return Path(self.path).expanduser()

    def _open(self, task: str, clients: int, outputs: int) -> MappedPopulation:
        population = load_arrays(self._folder, task, outputs)
        if population.clients < clients:
            raise InputError("clients", clients, f"at most {population.clients}, those in {self._folder}")
        return population


def _origin(population: MappedPopulation, names: tuple[str, ...]) -> Origin:
    tests, train = ([f"{prefix}{name}.npy" for name in names] for prefix in ("test_", ""))
    return announce("samples", len(population.test[0]), tests, train=train)


def load_arrays(folder: Path, task: str, outputs: int) -> MappedPopulation:
    """Opens the files of a directory; only their ends and a few pieces are read.

    Args:
        folder: the directory.
        task: "language_modelling" or "classification".
        outputs: number of labels or token ids.

    Raises:
        InputError: a file is missing, or has the wrong shape or type; or a test label is out of range.
    """
    if not folder.is_dir():
        raise InputError("data.source", f"arrays:{folder}", "a directory that exists")
    train = _shares(folder, "train")
    if not len(train):
        raise InputError(str(folder / "train_starts.npy"), "no client", "two or more numbers")
    kept_back = any((folder / f"held_{part}.npy").exists() for part in ("rows", "starts"))
    held = _shares(folder, "held") if kept_back else _none(len(train))
    if len(held) != len(train):
        raise InputError(
            str(folder / "held_starts.npy"), f"{len(held)} clients", f"{len(train)}, as in train_starts.npy"
        )
    pool, test = (_batch(folder, prefix, task) for prefix in ("", "test_"))
    first, least = ("samples", 2) if task == "language_modelling" else ("features", 1)
    if pool[0].shape[1] < least:
        expected = f"rows of {least} number{'s' if least > 1 else ''} or more"
        raise InputError(str(folder / f"{first}.npy"), tuple(pool[0].shape), expected)
    if not len(test[0]) or test[0].shape[1:] != pool[0].shape[1:]:
        expected = f"one row or more of {pool[0].shape[1]}, as in {first}.npy"
        raise InputError(str(folder / f"test_{first}.npy"), tuple(test[0].shape), expected)
    _check_ids(f"{folder}/test", test[-1], outputs)
    return MappedPopulation(pool, train, held, test, _fingerprint(folder), outputs)


def _check_ids(field: str, ids: Tensor | NDArray[np.int64], outputs: int) -> None:
    least, most = int(ids.min()), int(ids.max())
    if not 0 <= least <= most < outputs:
        raise InputError(field, f"labels or tokens {least} to {most}", f"numbers from 0 to {outputs - 1}")


def _shares(folder: Path, name: str) -> Shares:
    rows, starts = (_open(folder / f"{name}_{part}.npy", 1, np.int64) for part in ("rows", "starts"))
    path = folder / f"{name}_starts.npy"
    if not len(starts) or starts[0] != 0 or starts[-1] != len(rows):
        given = f"{starts[0]} to {starts[-1]}" if len(starts) else "nothing"
        raise InputError(str(path), given, f"numbers from 0 to {len(rows)}, the rows there are")
    return Shares(rows, starts)


def _none(clients: int) -> Shares:
    return Shares(np.empty(0, np.int64), np.broadcast_to(np.int64(0), clients + 1))


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
        check_file(path)
        array: NDArray[Any] = open_memmap(path, mode="r")
    except InputError:
        raise
    except Exception as error:  # NumPy gives a damaged header to Python's parser, which raises many types
        raise InputError("data.source", str(path), f"a .npy file; {error}".replace("\n", " ")) from None
    if array.ndim != dimensions or array.dtype != dtype:
        raise InputError(
            str(path), f"{array.dtype} {array.shape}", f"{np.dtype(dtype)} of {dimensions} dimension(s)"
        )
    # A plain array, because every slice of a memmap costs additional microseconds.
    return np.asarray(array)


def _fingerprint(folder: Path) -> str:
    """Returns the SHA-256 over names, sizes and evenly spaced pieces of `FILES`.

    Files are not read as a whole, because reading terabytes would take hours. Other files in the folder do
    not count.
    """
    found = hashlib.sha256()
    for path in sorted(folder / name for name in FILES):
        if not path.is_file():
            continue
        size = path.stat().st_size
        found.update(f"{path.name}/{size}/".encode())
        with path.open("rb") as file:
            for start in sorted({round(at) for at in np.linspace(0, max(0, size - PIECE), PIECES)}):
                file.seek(start)
                found.update(file.read(PIECE))
    return found.hexdigest()
