"""Which clients can take part in a round: by a trace, or by a rule."""

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

from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part
from fedtlu_fast.randomness import generator

HEADER = ["client", "first", "last"]


class Schedule(Protocol):
    """Knows which clients can take part in the rounds of one run."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What a resumed run must share beside its settings, such as the digest of a file."""
        ...

    def available(self, round_index: int) -> Indices:
        """The clients that can take part in a round (1 for the first), ascending."""
        ...


class Availability(ABC):
    """A rule by which clients can take part. To write your own, subclass it."""

    @abstractmethod
    def schedule(self, seed: int, clients: int, rounds: int) -> Schedule:
        """The rule for one run.

        Args:
            seed: of the run.
            clients: how many there are; they are numbered from 0.
            rounds: of the run.

        Raises:
            InputError: the rule does not serve for such a run.
        """


@part
class Duty(Availability):
    """Each client can take part in a share of every period, which it begins at a place of its own.

    Attributes:
        share: of a period, in (0, 1]; at least one round of it.
        period: rounds.
    """

    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    period: Annotated[int, Field(ge=1)] = 10

    def __post_init__(self) -> None:
        if round(self.share * self.period) < 1:
            raise InputError("share", self.share, f"at least one round of the {self.period} of a period")

    def schedule(self, seed: int, clients: int, rounds: int) -> DutyCycle:
        """See `Availability.schedule`."""
        return DutyCycle(seed, clients, self.period, round(self.share * self.period))


@part
class Trace(Availability):
    """Clients can take part in the rounds that a file names; a client that is not named never can.

    Attributes:
        path: of the file, which is read when a run begins; see `load_trace`.
    """

    path: str

    def schedule(self, seed: int, clients: int, rounds: int) -> Intervals:
        """See `Availability.schedule`."""
        return load_trace(Path(self.path), clients, rounds)


@dataclass(frozen=True)
class DutyCycle:
    """Each client can take part in `on` rounds of every `period`, which it begins at a place of its own.

    In memory 8 bytes a client; a round costs one pass over them (milliseconds for a million).

    Attributes:
        seed: of the run.
        clients: how many.
        period: rounds.
        on: of these, 1 to `period`.
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
        """Nothing: the settings say it all."""
        return {}

    def available(self, round_index: int) -> Indices:
        """See `Schedule.available`."""
        return np.flatnonzero((round_index + self._begins) % self.period < self.on)


@dataclass(frozen=True)
class Intervals:
    """Intervals of rounds in which clients can take part; a client that is not named never can.

    Attributes:
        clients: [I], of each interval.
        first: [I], its first round.
        last: [I], its last round, which belongs to it.
        sha256: of the file.
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
        path: a .csv file with the columns client, first, last (rounds from 1; the last one included), or a
            .json file with a mapping of clients to lists of rounds and [first, last] pairs:
            ``{"0": [1, 2, [5, 9]]}``.
        clients: how many there are; they are numbered from 0.
        rounds: of the run, which the trace has to cover.

    Raises:
        InputError: it cannot be read, names a client that is not there, or ends before the run does.
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
"""Where it stands, and client, first and last round."""


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
    """The values between commas, which may be quoted: none of them has a comma in it."""
    return [cell.strip().strip('"') for cell in line.split(",")]


def _is_number(text: str) -> bool:
    """Whether it is a whole number of no more digits than any that can be meant."""
    return bool(re.fullmatch(r"[+-]?[0-9]{1,20}", text))


def _whole(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)
