"""What every section of the settings has in common."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticSerializationError

from fedtlu_fast.errors import InputError
from fedtlu_fast.validation import MOST_SEED, MOST_WHOLE, check_size

logger = logging.getLogger("fedtlu_fast")


class Section(BaseModel):
    """Settings refuse unknown keys and cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Old names of settings, which are still read, with a warning."""

    def model_dump(self, **how: Any) -> dict[str, Any]:
        """The settings as a nested mapping; see pydantic.

        Raises:
            InputError: a part cannot be named.
        """
        try:
            return super().model_dump(**how)
        except PydanticSerializationError:
            self.check_names()  # raises the error that pydantic hides
            raise

    def parts(self) -> Iterator[Any]:
        """All parts in these settings."""
        for section in self._sections():
            yield from section.parts()

    def check_names(self) -> None:
        """Makes sure that every part in these settings can be named.

        Raises:
            InputError: one cannot.
        """
        for section in self._sections():
            section.check_names()

    def _sections(self) -> Iterator[Section]:
        """The sections in this one, lists of sections included."""
        for name in type(self).model_fields:
            value = getattr(self, name)
            for own in value if isinstance(value, tuple) else (value,):
                if isinstance(own, Section):
                    yield own

    @model_validator(mode="before")
    @classmethod
    def _renamed(cls, given: Any) -> Any:
        return cls.by_new_names(cls.spelled_out(given))

    @classmethod
    def spelled_out(cls, given: Any) -> Any:
        """The section as a mapping where it is given in short, such as ``dirichlet:0.1``; else as it is.

        Raises:
            InputError: the short form means nothing; its field is a setting of this section.
        """
        return given

    @classmethod
    def by_new_names(cls, given: Any) -> Any:
        """Settings under their new names, with a warning for each old name."""
        if not isinstance(given, Mapping) or not cls.renamed.keys() & given.keys():
            return given
        tree = dict(given)
        for old in cls.renamed.keys() & tree.keys():
            new, value = cls.renamed[old], tree.pop(old)
            if new in tree:
                raise InputError(old, value, f"nothing beside {new}, which is its new name")
            logger.warning(
                "the setting %s is now called %s; the old name will not be read for ever", old, new
            )
            tree[new] = value
        return tree

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
        check_size(value, MOST_SEED if info.field_name == "seed" else MOST_WHOLE)
        return value


def check_unused(section: Section, used: Collection[str], chosen: str) -> None:
    """Settings that mean nothing beside what was chosen have to be at their defaults."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if name not in used and value != info.default:
            raise InputError(
                name, value, f"{info.default} with {chosen}, which does not use it", "Leave it out."
            )
