"""Checks numbers for settings and parts, and turns pydantic's errors into ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from fedtlu_fast.errors import InputError, choice, nearest
from fedtlu_fast.wording import ALL_SETTINGS

MOST_WHOLE, MOST_SEED = 2**31 - 1, 2**128
MOST_NUMBER = 1e38
"""The largest number that is accepted; float32, in which everything is computed, ends at about 3.4e38."""


def check_size(value: Any, most: int = MOST_WHOLE) -> None:
    """Refuses numbers that are too large for any machine, also in lists and mappings.

    Raises:
        ValueError: A number is too large.
    """
    if isinstance(value, int) and not -most <= value <= most:
        raise ValueError(f"a whole number of at most {most}")
    if isinstance(value, float) and abs(value) > MOST_NUMBER:
        raise ValueError(f"a number of at most {MOST_NUMBER:g}")
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for item in value:
            check_size(item, most)


def input_error(first: ErrorDetails, field: str, about: str = "") -> InputError:
    """Turns pydantic's error about one value into an `InputError`.

    Args:
        first: pydantic's error.
        field: the name of the setting or parameter, as the user knows it.
        about: the description of the setting or parameter.
    """
    value = first["input"]
    if first["type"] == "literal_error":
        # The description is shown if it does not name all of them, because it then tells something else.
        known = re.findall(r"'([^']*)'", str(first["ctx"]["expected"]))
        if known:
            expected = f"one of {choice(known, ALL_SETTINGS)}"
            about = "" if all(name in about for name in known) else about
            return InputError(field, value, expected, f"({about})" if about else "", _near(value, known))
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "string_pattern_mismatch" and about:
        # The names that the description begins with. The limit is high, because "gpu" resembles "cpu" but
        # does not mean it.
        names = re.findall(r"(?:^|\| )([a-z]+)", about)
        return InputError(field, value, about, near=_near(value, names, 0.7))
    if isinstance(value, Mapping):
        value = {key: item for key, item in value.items() if str(key) in expected} or dict(value)
    return InputError(field, value, expected, f"({about})" if about else "")


def cause_of(first: ErrorDetails) -> InputError | None:
    """Returns our own error that pydantic has wrapped; None if there is none."""
    found = first.get("ctx", {}).get("error")
    return found if isinstance(found, InputError) else None


def _near(value: object, names: Sequence[str], least: float = 0.6) -> str:
    return nearest(value, names, least) if isinstance(value, str) else ""
