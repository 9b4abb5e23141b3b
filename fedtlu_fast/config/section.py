"""What every section of the settings has in common."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationInfo,
    field_validator,
)

from fedtlu_fast.errors import InputError

MOST_WHOLE, MOST_SEED = 2**31 - 1, 2**128
MOST_NUMBER = 1e38
"""Beyond it float32, in which everything is computed, knows infinity alone."""


class Section(BaseModel):
    """Settings refuse unknown keys and cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would read true as 1; few settings are switches.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("not true or false")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _of_some_size(cls, value: Any, info: ValidationInfo) -> Any:
        _check_size(value, MOST_SEED if info.field_name == "seed" else MOST_WHOLE)
        return value


def check_unused(section: Section, used: Collection[str], chosen: str) -> None:
    """Settings that mean nothing beside what was chosen have to be at their defaults."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if name not in used and value != info.default:
            raise InputError(
                name, value, f"{info.default} with {chosen}, which does not use it", "Leave it out."
            )


def _check_size(value: Any, most: int) -> None:
    """Numbers that no machine can do anything with are refused here, whatever the setting."""
    if isinstance(value, int) and not -most <= value <= most:
        raise ValueError(f"a whole number of at most {most}")
    if isinstance(value, float) and abs(value) > MOST_NUMBER:
        raise ValueError(f"a number of at most {MOST_NUMBER:g}")
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for item in value:
            _check_size(item, most)
