"""Checks that settings and parts share, and pydantic's errors as ours."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic_core import ErrorDetails

from fedtlu_fast.errors import InputError, choice, nearest
from fedtlu_fast.wording import ALL_SETTINGS

MOST_WHOLE, MOST_SEED = 2**31 - 1, 2**128
MOST_NUMBER = 1e38
"""float32, in which everything is computed, has no numbers that are much larger."""


def check_size(value: Any, most: int = MOST_WHOLE) -> None:
    """Refuses numbers with which no machine can do anything; looks into lists and mappings too.

    Raises:
        ValueError: a number is too large.
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
    """The error of one value that pydantic refused.

    Args:
        first: what pydantic says.
        field: the name of the setting or parameter, as the user knows it.
        about: what is documented of it.
    """
    value = first["input"]
    if first["type"] == "literal_error":
        # The description names them too, most often with what each means, and may name more.
        known = re.findall(r"'([^']*)'", str(first["ctx"]["expected"]))
        if known:
            expected = f"one of {choice(known, ALL_SETTINGS)}"
            about = "" if all(name in about for name in known) else about
            return InputError(field, value, expected, f"({about})" if about else "", _near(value, known))
    expected = first["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if first["type"] == "string_pattern_mismatch" and about:
        # The alternatives that it begins with; "gpu" is more like "cpu" than it means it.
        names = re.findall(r"(?:^|\| )([a-z]+)", about)
        return InputError(field, value, about, near=_near(value, names, 0.7))
    if isinstance(value, Mapping):
        value = {key: item for key, item in value.items() if str(key) in expected} or dict(value)
    return InputError(field, value, expected, f"({about})" if about else "")


def cause_of(first: ErrorDetails) -> InputError | None:
    """The error of a check of our own behind pydantic's; None if there is none."""
    found = first.get("ctx", {}).get("error")
    return found if isinstance(found, InputError) else None


def _near(value: object, names: Sequence[str], least: float = 0.6) -> str:
    return nearest(value, names, least) if isinstance(value, str) else ""
