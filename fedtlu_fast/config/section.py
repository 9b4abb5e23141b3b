"""What every section of the settings has in common."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationInfo,
    field_validator,
)

from fedtlu_fast.errors import InputError


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


def check_unused(section: Section, used: Collection[str], chosen: str) -> None:
    """Settings that mean nothing beside what was chosen have to be at their defaults."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if name not in used and value != info.default:
            raise InputError(
                name, value, f"{info.default} with {chosen}, which does not use it", "Leave it out."
            )
