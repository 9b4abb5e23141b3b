"""The availability of clients: by a trace or by a rule, only some clients can take part in a round."""

from __future__ import annotations

import hashlib
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Protocol

import numpy as np
from pydantic import Field
from typing_extensions import override

from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part
from fedtlu_fast.randomness import generator

HEADER = ["client", "first", "last"]


class Schedule(Protocol):
    """The clients that can take part in each round of one run."""

    @property
    def identity(self) -> Mapping[str, str]:
        """Values that a resumed run must share in addition to its settings, such as the digest of a file."""
        ...

    def available(self, round_index: int) -> Indices:
        """Returns the clients that can take part in a round (1 for the first), ascending."""
        ...


class Availability(ABC):
    """A rule that says which clients can take part. To write your own, subclass it."""

    @abstractmethod
    def schedule(self, seed: int, clients: int, rounds: int) -> Schedule:
        """Returns the schedule of one run.

        Args:
            seed: the run's seed.
            clients: number of clients; they are numbered from 0.
            rounds: number of rounds.

        Raises:
            InputError: the rule does not fit the run.
        """


@part
class Duty(Availability):
    """Each client can take part in a share of every period, which begins at a round drawn for the client.

    Attributes:
        share: share of a period in which a client can take part, in (0, 1]; at least one round.
        period: number of rounds in a period.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    period: Annotated[int, Field(ge=1)] = 10

    def __post_init__(self) -> None:
        if round(self.share * self.period) < 1:
            raise InputError("share", self.share, f"at least one round of the {self.period} of a period")

    @override
    def schedule(self, seed: int, clients: int, rounds: int) -> DutyCycle:
        return DutyCycle(seed, clients, self.period, round(self.share * self.period))


@part
class Trace(Availability):
    """Clients can take part in the rounds that a file lists for them; a client outside the file never can.

    Attributes:
        path: the file, which is read when a run begins; see `load_trace` for its format.
    """

    path: str

    @override
    def schedule(self, seed: int, clients: int, rounds: int) -> Intervals:
        return load_trace(Path(self.path), clients, rounds)


@dataclass(frozen=True)
class DutyCycle:
    """The schedule of `Duty`: each client can take part in `on` consecutive rounds of every `period`.

    It takes 8 bytes of memory for each client, and each round one pass over all clients (milliseconds for a
    million).

    Attributes:
        seed: the run's seed.
        clients: number of clients.
        period: number of rounds in a period.
        on: number of rounds of a period in which a client can take part, 1 to `period`.
    """

    seed: int
    clients: int
    period: int
    on: int

    @cached_property
    def _begins(self) -> Indices:
        return generator(self.seed, "availability").integers(self.period, size=self.clients)

    @property
    def identity(self) -> Mapping[str, str]:
        """Empty, because the settings define the schedule completely."""
        return {}

    def available(self, round_index: int) -> Indices:
        """See `Schedule.available`."""
        return np.flatnonzero((round_index + self._begins) % self.period < self.on)


@dataclass(frozen=True)
class Intervals:
    """The schedule of `Trace`: I intervals of rounds in which clients can take part.

    Attributes:
        clients: [I] int64, the client of each interval.
        first: [I] int64, the first round of each interval.
        last: [I] int64, the last round of each interval, which is included.
        sha256: the digest of the file.
    """

    clients: Indices
    first: Indices
    last: Indices
    sha256: str

    @property
    def identity(self) -> Mapping[str, str]:
        """The digest of the file."""
        return {"trace_sha256": self.sha256}

    def available(self, round_index: int) -> Indices:
        """See `Schedule.available`."""
        return np.unique(self.clients[(self.first <= round_index) & (round_index <= self.last)])


def load_trace(path: Path, clients: int, rounds: int) -> Intervals:
    """Reads a trace.

    Args:
        path: a .csv file with the columns client, first, last (rounds from 1; the last one is included), or a
            .json file that maps clients to lists of rounds and [first, last] pairs: ``{"0": [1, 2, [5,
            9]]}``.
        clients: number of clients; they are numbered from 0.
        rounds: number of rounds of the run, which the trace has to cover.

    Raises:
        InputError: the file cannot be read, names an unknown client, or ends before the run does.
    """
    field = "participation.trace"
    try:
        content = path.expanduser().read_bytes()
        text = content.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError, RuntimeError) as error:
        raise InputError(field, str(path), f"a file that can be read; {error}") from None
    kind = path.suffix.lower()
    if kind not in (".csv", ".json"):
        raise InputError(field, str(path), "a .csv or .json file")
    rows = list(_csv_rows(path, text) if kind == ".csv" else _json_rows(path, text))
    for place, (client, first, last) in rows:
        if not 0 <= client < clients:
            raise InputError(f"{path}, {place}", f"client {client}", f"a number from 0 to {clients - 1}")
        if not 1 <= first <= last < 2**63:
            raise InputError(
                f"{path}, {place}", f"rounds {first} to {last}", "rounds from 1, the last no smaller"
            )
    end = max((last for _, (_, _, last) in rows), default=0)
    if end < rounds:
        raise InputError(
            field,
            str(path),
            f"rounds up to {rounds}, as many as the run has; it ends with round {end}",
            "Use fewer rounds, or a longer trace.",
        )
    table = np.array([row for _, row in rows], dtype=np.int64).reshape(-1, 3)
    return Intervals(table[:, 0], table[:, 1], table[:, 2], hashlib.sha256(content).hexdigest())


Row = tuple[str, tuple[int, int, int]]
"""The place of a row in the file, for messages; and its client, first round and last round."""


def _csv_rows(path: Path, text: str) -> Iterator[Row]:
    lines = enumerate(text.splitlines(), start=1)
    head = next(lines, (1, ""))[1]
    if _cells(head) != HEADER:
        raise InputError(f"{path}, line 1", head, "client,first,last")
    for number, line in lines:
        if not line.strip():
            continue
        place, numbers = f"line {number}", _cells(line)
        if len(numbers) != len(HEADER) or not all(map(_is_number, numbers)):
            raise InputError(f"{path}, {place}", line, "three whole numbers")
        client, first, last = map(int, numbers)
        yield place, (client, first, last)


def _json_rows(path: Path, text: str) -> Iterator[Row]:
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError("participation.trace", str(path), f"JSON; {error}") from None
    if not isinstance(tree, dict):
        raise InputError("participation.trace", str(path), "a mapping of clients to lists of rounds")
    for name, rounds in tree.items():
        place = f"client {name[:40]}"
        if not _is_number(name) or not isinstance(rounds, list):
            raise InputError(f"{path}, {place}", rounds, "a client's number, and a list of rounds")
        for given in rounds:
            pair = given if isinstance(given, list) else [given, given]
            if len(pair) != 2 or not all(_whole(number) for number in pair):
                raise InputError(f"{path}, {place}", given, "a round, or a pair of the first and the last")
            yield place, (int(name), pair[0], pair[1])


def _cells(line: str) -> list[str]:
    """Returns the values between commas without quotation marks; no value contains a comma."""
    return [cell.strip().strip('"') for cell in line.split(",")]


def _is_number(text: str) -> bool:
    """Tells whether a text is a whole number of at most 20 digits."""
    return bool(re.fullmatch(r"[+-]?[0-9]{1,20}", text))


def _whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
