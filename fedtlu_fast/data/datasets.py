"""A federation of the user's own data: PyTorch or Hugging Face Datasets, lists, tensors, or a function."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch

from fedtlu_fast.data.form import Form, flattened, words
from fedtlu_fast.data.held import Held, check_holder, length_of, pool_of
from fedtlu_fast.data.listed import Collate, Listed
from fedtlu_fast.data.partitions import as_clients
from fedtlu_fast.data.population import Indices, Pool, Samples, count, on_device
from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import torch_seeded

Clients = Sequence[Held] | Callable[[int], Held]
SOME_CLIENTS, SOME_SAMPLES = 64, 64
"""Largest number of clients, and of test samples, that a fingerprint reads."""


@dataclass(frozen=True, repr=False)
class Datasets:
    """The user's own data, client by client.

    The samples of a client, and those of the test, are one of:

    * an object with a length and numbered samples: a `torch.utils.data.Dataset`, a list of samples, or a
      Hugging Face Dataset. Samples are read when a batch needs them, and may have different sizes. A sample
      is a tensor, array or number, or a tuple, list or dictionary of such values;
    * tensors whose first dimension counts the samples: one tensor, a tuple such as ``(inputs, targets)``, a
      dictionary, or a `torch.utils.data.TensorDataset`.

    All clients and the test have samples of one form.

    Attributes:
        train: the training samples of each client: a list with an entry for each client, or a function
            ``client -> samples``, which is called with 0 to ``clients - 1`` whenever a client is drawn and
            must return the same samples each time; or a partitioner or FederatedDataset of Flower Datasets,
            whose partitions are the clients.
        test: the global test; one sample or more.
        held_out: the own test samples of each client, in the same form as `train`; a client's may be empty.
            None: clients have no tests of their own.
        clients: number of clients; needed with a function.
        collate_fn: makes a batch from a list of samples, as `torch.utils.data.DataLoader`'s does; the first
            dimension of each of its tensors counts the samples. None: the task's collate function, or `Pad`,
            which fills samples up to the longest of a batch, integer targets with -100.

    Raises:
        InputError: there is no client, no test, `clients` does not fit `train`, or a client of a list holds
            none of the above, such as a `torch.utils.data.DataLoader`.

    Examples:
        >>> sentences = [[([3, 4, 5], [0, 1, 0]), ([6], [1])], [([3, 6], [0, 1])]]
        >>> data = Datasets(train=sentences, test=[([4, 5], [1, 0])])
        >>> data.population().train(0).all()[1].tolist()
        [[0, 1, 0], [1, -100, -100]]
    """

    train: Clients
    test: Held
    held_out: Clients | None = None
    clients: int | None = None
    collate_fn: Collate | None = None

    def __post_init__(self) -> None:
        for field in ("train", "held_out"):
            object.__setattr__(self, field, as_clients(getattr(self, field), field))
        if self.clients is not None and (isinstance(self.clients, bool) or not isinstance(self.clients, int)):
            raise InputError("clients", self.clients, "a whole number")
        for field, held in (("train", self.train), ("held_out", self.held_out)):
            if held is None and field == "held_out":
                continue
            if callable(held):
                if self.clients is None or self.clients < 1:
                    raise InputError("clients", self.clients, f"1 or more, since {field} is a function")
            elif not isinstance(held, Sequence) or isinstance(held, str):
                known = "a list with what each client holds, a partitioner"
                expected = f"{known}, or a function client -> samples"
                raise InputError(field, held, expected)
            elif not len(held):
                raise InputError(field, held, "at least one client")
            elif len(held) != self.number:
                raise InputError(field, f"{len(held)} clients", f"{self.number}, as many as there are")
        for field, held in (("train", self.train), ("held_out", self.held_out)):
            for client, own in enumerate(held if isinstance(held, list | tuple) else ()):
                check_holder(own, f"{field}[{client}]")
                if field == "train" and length_of(own) == 0:
                    raise InputError(f"train[{client}]", own, "one sample or more to train on")
        check_holder(self.test, "test")
        if length_of(self.test) == 0:
            raise InputError("test", self.test, "one sample or more")

    def __repr__(self) -> str:
        test = length_of(self.test)
        own = "no tests of their own" if self.held_out is None else "tests of their own"
        return f"Datasets of {self.number} clients with {own}, and a test of {test} samples"

    @property
    def number(self) -> int:
        """The number of clients."""
        if self.clients is not None:
            return self.clients
        return 0 if callable(self.train) else len(self.train)

    def population(self, collate: Collate | None = None) -> DatasetPopulation:
        """Returns the clients as a `Population`.

        Args:
            collate: the task's collate function, if it has one.

        Raises:
            InputError: both the data and the task have a collate function; or the first sample of the test
                cannot be made into a batch.
        """
        if collate is not None and self.collate_fn is not None:
            raise InputError(
                "collate_fn", self.collate_fn, "None, since the task has a collate function of its own"
            )
        given = self.collate_fn or collate
        test, form = pool_of(self.test, "test", given)
        if form is None and isinstance(test, Listed):
            with torch_seeded(0, "first batch"):
                form = flattened(test.collate([test.items[0]]), "collate_fn")[1]
            test = replace(test, form=form)
        return DatasetPopulation(self, test, form, given)


@dataclass(frozen=True)
class DatasetPopulation:
    """The clients of `Datasets`; satisfies `Population`. It reads only the samples that are needed.

    Attributes:
        source: the user's data.
        test: see `Population`.
        form: the form of every batch.
        collate: makes batches; None: `Pad`, or no function if clients hold tensors.
        device: the device to which batches are sent.
    """

    source: Datasets
    test: Pool
    form: Form
    collate: Collate | None
    device: str = "cpu"

    @property
    def clients(self) -> int:
        """See `Population`."""
        return self.source.number

    def train(self, client: int) -> Samples:
        """See `Population`.

        Raises:
            InputError: the client has no samples, or their form is not that of the test.
        """
        found = self._samples(self.source.train, "train", client)
        if not len(found):
            raise InputError(f"train[{client}]", "no samples", "one sample or more to train on")
        return found

    def held_out(self, client: int) -> Samples:
        """See `Population`.

        Raises:
            InputError: the form of the client's samples is not that of the test.
        """
        if self.source.held_out is None:
            return Samples(self.test, np.empty(0, np.int64))
        return self._samples(self.source.held_out, "held_out", client)

    def sizes(self) -> Indices:
        """See `KnowsSizes`. Samples are not read.

        Raises:
            InputError: `train` is a function, so that sizes are unknown before a client is drawn.
        """
        if callable(self.source.train):
            expected = "uniform or fixed, since a function does not tell how much clients hold"
            raise InputError("participation.sampler", "size or loss", expected)
        return np.array([length_of(held) for held in self.source.train], np.int64)

    def to(self, device: str) -> DatasetPopulation:
        """See `Population`. A client's samples are sent when it is drawn."""
        return replace(self, device=device, test=on_device(self.test, device))

    @cached_property
    def fingerprint(self) -> str:
        """See `Population`. It is the SHA-256 over the number of clients, the lengths and a part of the data.

        The content of up to `SOME_CLIENTS` clients, the first and the last among them, is read: tensors as a
        whole, otherwise the first and the last sample. Of the test, up to `SOME_SAMPLES` samples are read.
        Reading everything could take hours. A function is called for the first client only. A client whose
        samples cannot be read counts by the type of the error, which the rounds report.
        """
        found = hashlib.sha256(f"{self.clients}/{words(self.form)}".encode())
        asked = [0] if callable(self.source.train) else _spread(self.clients, SOME_CLIENTS)
        with torch_seeded(0, "fingerprint"):
            if not callable(self.source.train):
                found.update(self.sizes().tobytes())
            for client in asked:
                for held in (self.train, self.held_out):
                    try:
                        samples = held(client)
                        found.update(f"{len(samples)}/".encode())
                        _update(found, samples.pool, 2)
                    except Exception as error:
                        found.update(type(error).__name__.encode())
            found.update(f"{count(self.test)}/".encode())
            _update(found, self.test, SOME_SAMPLES)
        return found.hexdigest()

    def _samples(self, clients: Clients, name: str, client: int) -> Samples:
        if callable(clients):
            # It must return the same samples each time, also if it draws from the global generators.
            with torch_seeded(0, f"data, {name}", 0, client):
                held = clients(client)
        else:
            held = clients[client]
        pool, form = pool_of(held, f"{name}[{client}]", self.collate)
        if isinstance(pool, Listed):
            pool = replace(pool, form=self.form)
        elif form != self.form:
            expected = f"samples of the form {words(self.form)}, as the test has"
            raise InputError(f"{name}[{client}]", words(form), expected)
        return Samples(on_device(pool, self.device), np.arange(count(pool)))


def _spread(total: int, most: int) -> list[int]:
    """Returns up to `most` numbers from 0 to `total` - 1, evenly spread, with the first and the last."""
    places = np.linspace(0, total - 1, min(most, total)).round()
    return [int(place) for place in np.unique(places)]


def _update(found: Any, pool: Pool, most: int) -> None:
    """Adds the content of a pool to a hash: tensors as a whole, and some samples of a `Listed` pool."""
    if not count(pool):
        return
    batches = [pool]
    if isinstance(pool, Listed):
        batches = [pool.select(np.array([row])) for row in _spread(len(pool), most)]
    for batch in batches:
        for part in batch if isinstance(batch, tuple) else ():
            found.update(f"{tuple(part.shape)}{part.dtype}".encode())
            found.update(part.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
