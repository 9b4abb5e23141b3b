"""Sections of settings in which a name chooses a part, and the part's parameters stand beside the name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import SerializerFunctionWrapHandler, ValidationInfo, model_serializer, model_validator

from fedtlu_fast.config.chooser import Chooser, Unfound
from fedtlu_fast.config.section import Section
from fedtlu_fast.errors import InputError

READING = {"reading": True}
"""Validation context for reading the settings of a finished run, whose parts need not be importable here."""


class PartsSection(Section):
    """A section with fields marked by `Chooser`."""

    @classmethod
    def choosers(cls) -> dict[str, Chooser]:
        """Returns the fields that hold parts, with their markers."""
        return {
            name: mark
            for name, info in cls.model_fields.items()
            for mark in info.metadata
            if isinstance(mark, Chooser)
        }

    @classmethod
    def part_settings(cls) -> dict[str, str]:
        """Returns the settings that are parameters of named parts, with their descriptions."""
        found: dict[str, str] = {}
        for chooser in cls.choosers().values():
            for setting, users in chooser.users().items():
                found.setdefault(setting, f"{', '.join(users)}: {chooser.about(setting, users)}")
        return found

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Returns the default of every setting that is a parameter of a named part."""
        found: dict[str, Any] = {}
        for chooser in cls.choosers().values():
            for setting, users in chooser.users().items():
                found.setdefault(setting, next(iter(users.values())))
        return found

    @classmethod
    def forget_(cls, below: dict[str, Any], above: Mapping[str, Any]) -> None:
        """Drops from `below` the parameters that the part chosen in `above` does not use."""
        for field, chooser in cls.choosers().items():
            chosen = above.get(field)
            if not isinstance(chosen, str):
                continue
            try:
                kept = set(chooser.settings_of(chooser.found(field, chosen)).values())
            except InputError:
                continue  # validation raises it again, with the section's name
            known = {*chooser.users(), *cls._own(field, below)}
            for setting in (known - kept - set(cls.model_fields)) & below.keys():
                del below[setting]

    @classmethod
    def spelled_out(cls, given: Any) -> Any:
        """See `Section`: ``NAME:VALUE`` becomes the name, with the value in the part's own setting."""
        if not isinstance(given, Mapping):
            return given
        tree = dict(given)
        for field, chooser in cls.choosers().items():
            text = tree.get(field)
            if not isinstance(text, str) or ":" not in text:
                continue
            for setting, value in chooser.spelled_out(field, text).items():
                if setting != field and setting in tree:
                    raise InputError(setting, tree[setting], f"nothing beside {field}={text}, which says it")
                tree[setting] = value
        return tree

    @classmethod
    def _own(cls, field: str, tree: Mapping[str, Any]) -> set[str]:
        """The parameters of the part that these settings choose; the part may be the user's own.

        Of a part that cannot be imported here these are all settings that nothing else explains.
        """
        chooser = cls.choosers()[field]
        try:
            return set(chooser.settings_of(chooser.found(field, str(tree.get(field)))).values())
        except InputError:
            explained = {name for own in cls.choosers().values() for name in own.users()}
            return set(tree) - set(cls.model_fields) - explained

    def parts(self) -> Iterator[Any]:
        """See `Section`."""
        yield from super().parts()
        yield from (getattr(self, field) for field in self.choosers())

    def name_of(self, field: str) -> str:
        """Returns the name of the part that a setting chooses, as settings spell it."""
        return self.choosers()[field].name_of(getattr(self, field))

    def check_names(self) -> None:
        """See `Section`."""
        super().check_names()
        for field, chooser in self.choosers().items():
            chooser.name_of(getattr(self, field))
            chooser.values_of(getattr(self, field))

    @model_validator(mode="before")
    @classmethod
    def _parts(cls, given: Any, info: ValidationInfo) -> Any:
        given = cls.spelled_out(given)
        if not isinstance(given, Mapping):
            return given
        tree = cls._unnested(cls.by_new_names(given))  # pydantic would do both after this
        for field, chooser in cls.choosers().items():
            given_part = tree.get(field, chooser.name_of(cls.model_fields[field].default))
            try:
                tree[field] = chooser.read(field, given_part, tree)
                chooser.check_base(field, tree[field])
            except InputError as error:
                if info.context != READING or not isinstance(given_part, str):
                    raise
                others = [own.users() for name, own in cls.choosers().items() if name != field]
                known = cls.model_fields.keys() | {key for own in others for key in own}
                unknown = [key for key in tree if key not in known]
                settings = {key: tree.pop(key) for key in unknown}
                tree[field] = Unfound(given_part, settings, error.of(f"{cls.__name__}.{field}"))
        for field, chooser in cls.choosers().items():
            for setting, users in chooser.users().items():
                if setting in tree and setting not in cls.model_fields:
                    value = tree.pop(setting)
                    if chooser.strict:
                        _check_unused(setting, value, field, chooser, tree[field], users)
        return tree

    @classmethod
    def _unnested(cls, given: Mapping[str, Any]) -> dict[str, Any]:
        """Replaces nested parameters by parameters with dotted names."""
        tree = dict(given)
        outer = {name.partition(".")[0] for name in cls.defaults() if "." in name}
        for name in outer & tree.keys():
            inner = tree.pop(name)
            if not isinstance(inner, Mapping):
                raise InputError(name, inner, "a mapping of settings")
            tree |= {f"{name}.{key}": value for key, value in inner.items()}
        return tree

    @model_serializer(mode="wrap")
    def _flat(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = {}
        parts = self.choosers()
        for name, value in handler(self).items():
            found[name] = value
            for setting, own in parts[name].values_of(getattr(self, name)).items() if name in parts else ():
                outer, point, inner = setting.partition(".")
                if point:
                    found.setdefault(outer, {})[inner] = own
                else:
                    found[setting] = own
        return found


def _check_unused(
    setting: str, value: Any, field: str, chooser: Chooser, chosen: Any, users: Mapping[str, Any]
) -> None:
    """Refuses a parameter that only other parts have, unless it has its default."""
    if (tuple(value) if isinstance(value, list) else value) in users.values():
        return
    taken = {} if chooser.is_made(chosen) else chooser.settings_of(type(chosen))
    own = ", ".join(taken.values()) or "no parameters"
    expected = f"no value with {field}={chooser.name_of(chosen)}, which does not use it and takes {own}"
    raise InputError(setting, value, expected, f"Leave it out, or use {' or '.join(users)}.")
