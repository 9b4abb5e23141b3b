"""Names the extra of this package that installs a missing optional package."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from fedtlu_fast.errors import InputError


def check_extra(package: str, field: str, value: Any, extra: str = "") -> None:
    """Raises an error if an optional package is missing.

    Args:
        package: the name under which the package is imported, such as ``peft``.
        field: the setting or argument that needs the package.
        value: the value of that setting.
        extra: the extra that brings the package; empty if it has the package's name.

    Raises:
        InputError: The package cannot be found; the message has the command that installs it.
    """
    if find_spec(package) is None:
        expected = f"the package {package}; it cannot be found"
        raise InputError(field, value, expected, f"Use pip install 'fedtlu-fast[{extra or package}]'.")
