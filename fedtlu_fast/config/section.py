"""Defines `Section`, the base of all sections of the settings."""

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
    """Holds settings; it refuses unknown keys and cannot be changed after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    renamed: ClassVar[Mapping[str, str]] = {}
    """Maps old names of settings to their new names; an old name is still read, with a warning."""

    def model_dump(self, **how: Any) -> dict[str, Any]:
        """Returns the settings as a nested mapping; the arguments are pydantic's.

        Raises:
            InputError: A part has no name that settings could hold.
        """
        try:
            return super().model_dump(**how)
        except PydanticSerializationError as error:
            if KeyboardInterrupt.__name__ in str(error):  # Ctrl-C in one of our functions, which it wraps
                raise KeyboardInterrupt from error
            self.check_names()  # raises the error that pydantic hides
            raise

    def parts(self) -> Iterator[Any]:
        """Yields all parts in these settings."""
        for section in self._sections():
            yield from section.parts()

    def check_names(self) -> None:
        """Checks that every part in these settings has a name that settings can hold.

        Raises:
            InputError: A part has no such name.
        """
        for section in self._sections():
            section.check_names()

    def _sections(self) -> Iterator[Section]:
        """Yields the sections in this one, and those in lists of sections."""
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
        """Expands a section in short form, such as ``dirichlet:0.1``, to a mapping.

        Any other value is returned unchanged.

        Raises:
            InputError: The short form means nothing; the error's field is a setting of this section.
        """
        return given

    @classmethod
    def by_new_names(cls, given: Any) -> Any:
        """Replaces old names of settings by their new names, with a warning for each."""
        if not isinstance(given, Mapping) or not cls.renamed.keys() & given.keys():
            return given
        tree = dict(given)
        for old in cls.renamed.keys() & tree.keys():
            new, value = cls.renamed[old], tree.pop(old)
            if new in tree:
                raise InputError(old, value, f"no value beside {new}, which is the new name of {old}")
            logger.warning(
                "the setting %s is now called %s; a later version will refuse the old name", old, new
            )
            tree[new] = value
        return tree

    @field_validator("*", mode="before")
    @classmethod
    def _no_switch(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic would read true as 1, and few settings are switches.
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation is not bool:
            raise ValueError("not true or false")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _of_some_size(cls, value: Any, info: ValidationInfo) -> Any:
        check_size(value, MOST_SEED if info.field_name == "seed" else MOST_WHOLE)
        return value


def check_unused(section: Section, used: Collection[str], chosen: str) -> None:
    """Raises an error if a setting that the chosen part does not use differs from its default."""
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if name not in used and value != info.default:
            raise InputError(name, value, f"no value with {chosen}, which does not use it", "Leave it out.")
