"""Values as JSON that every reader takes."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any


def dump_json(value: Any, indent: int | None = None) -> str:
    """JSON as every reader takes it: NaN and Inf become null."""
    return json.dumps(_finite(value), indent=indent, allow_nan=False)


def finite(row: Mapping[str, Any]) -> dict[str, Any]:
    """A copy as JSON gives it back: NaN and Inf are None, sequences are lists."""
    return {key: _finite(value) for key, value in row.items()}


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if type(value) is list and set(map(type, value)) <= {int, str}:  # a cohort has many numbers
        return list(value)
    if isinstance(value, Mapping):
        return finite(value)
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return value
