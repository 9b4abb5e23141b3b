"""Columns that a report is asked for: found by name, and their numbers taken from runs.

A column that gives no number shows a dash, and one line in the log says why; the report is made all the same.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from fedtlu_fast.errors import InputError, choice, nearest
from fedtlu_fast.parts import make
from fedtlu_fast.registry import find, names
from fedtlu_fast.report.columns import COLUMNS, Column, column_of
from fedtlu_fast.runs.results import ArmResult
from fedtlu_fast.shown import one_line, visible
from fedtlu_fast.wording import either

logger = logging.getLogger("fedtlu_fast")

FIELD = either("columns", "--columns")
Asked = str | Column | Callable[[Any], Any]
"""A column by its name or dotted name, a column, or a function of a run that gives a number."""


def asked_columns(given: Sequence[Asked]) -> tuple[Column, ...]:
    """Finds the columns that a report is asked for.

    Args:
        given: see `Asked`. A name is one of `COLUMNS`, one that an installed package adds (entry point
            ``column.NAME``), or else the key of a number in summary.json or metrics.jsonl, such as one that
            a callback logs.

    Raises:
        InputError: something cannot be imported, is no column, or two columns have the same key.
    """
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise InputError(FIELD, given, "a list of columns")
    found: dict[str, Column] = {}
    for one in given:
        column = _column(one)
        if found.setdefault(column.key, column) != column:
            raise InputError(FIELD, column.key, "a key of its own for every column")
    return tuple(found.values())


@dataclass(frozen=True)
class OwnColumns:
    """Columns that a report is asked for, with the number of every run.

    Attributes:
        columns: in the order in which they were asked for.
        values: for each column's key the number of each run, by the `id` of its `ArmResult` (runs of several
            conditions may share selector and seed); None for a dash.
        shares: the keys of the runs' metrics that are shown in per cent.
    """

    columns: tuple[Column, ...] = ()
    values: Mapping[str, Mapping[int, float | None]] = field(default_factory=dict)
    shares: frozenset[str] = frozenset()

    @classmethod
    def of(cls, runs: Sequence[ArmResult], columns: Sequence[Column]) -> OwnColumns:
        """Takes the numbers of the columns from these runs; the log says why if there is none."""
        shares = {
            f"{test}_{name}"
            for run in runs
            for name, facts in run.summary.get("figures", {}).items()
            for test in ("test", "local")
            if facts["percent"]
        }
        values = {column.key: _values(column, runs) for column in columns}
        return cls(tuple(columns), values, frozenset(shares))

    @property
    def keys(self) -> list[str]:
        """Returns the keys of the columns."""
        return [column.key for column in self.columns]

    def column_of(self, key: str) -> Column:
        """Returns the column of a key: one of these columns, or else what `columns.column_of` returns."""
        own = next((column for column in self.columns if column.key == key), None)
        if own is None and key in self.shares and key not in COLUMNS:
            return Column(key, scale=100, unit="%")
        return own or column_of(key)

    def value(self, run: ArmResult, key: str) -> float | None:
        """Returns the number of a run in a column: of these columns, or else of its summary."""
        if key in self.values:
            return self.values[key][id(run)]
        return run.summary.get(key)


NO_COLUMNS = OwnColumns()


def _column(given: Asked) -> Column:
    if isinstance(given, str) and given in COLUMNS:
        return COLUMNS[given]
    if isinstance(given, str) and given not in names("column") and ":" not in given:
        if not given.replace(".", "_").isidentifier():
            expected = f"one of {choice([*COLUMNS, *names('column')])}, the key of a number in the logs, "
            raise InputError(FIELD, given, f"{expected}or package.module:name of your own")
        return column_of(given)
    found = find("column", given, FIELD) if isinstance(given, str) else given
    if inspect.isclass(found) and issubclass(found, Column):
        found = make(found, {})
    if inspect.isfunction(found):
        return Column(found.__name__, form=".4g", figure=found)
    if not isinstance(found, Column):
        expected = "a fedtlu_fast.Column, or a function of a run that gives a number"
        raise InputError(FIELD, given, expected)
    return found


def _values(column: Column, runs: Sequence[ArmResult]) -> dict[int, float | None]:
    found: dict[int, float | None] = {}
    why: list[str] = []
    for run in runs:
        found[id(run)] = None
        try:
            found[id(run)] = _number(_given(column, run))
        except Exception as error:  # the user's code may raise anything
            reason = str(error) if isinstance(error, _NoNumberError) else f"{type(error).__name__}: {error}"
            why.append(f"{run.selector}, seed {run.seed}: {reason}")
    if why:
        logger.warning(
            "the column “%s” shows a dash for %d of %d runs; %s",
            visible(column.title),
            len(why),
            len(runs),
            one_line(why[0]),
        )
    return found


class _NoNumberError(ValueError):
    """A run has no number for a column: the message says why."""


def _given(column: Column, run: ArmResult) -> Any:
    if column.figure is not None:
        return column.figure(run)
    if run.summary.get(column.key) is not None:
        return run.summary[column.key]
    logged = [row[column.key] for row in run.metrics if row.get(column.key) is not None]
    if not logged:
        last = run.metrics[-1] if run.metrics else {}
        near = nearest(column.key, {*run.summary, *last})
        hint = f" (did you mean {near}?)" if near else ""
        raise _NoNumberError(f"neither summary.json nor metrics.jsonl has “{column.key}”{hint}")
    return logged[-1]


def _number(value: Any) -> float:
    if isinstance(value, bool | str) or not hasattr(value, "__float__"):
        raise _NoNumberError(f"{value!r} is no number")
    number = float(value)
    if not isfinite(number):
        raise _NoNumberError(f"{number} is no finite number")
    return number
