"""The settings that a part of the user's takes, found from its dotted name."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

from fedtlu_fast.config.chooser import Chooser
from fedtlu_fast.config.names import SECOND
from fedtlu_fast.config.parts_section import PartsSection
from fedtlu_fast.config.run import RunConfig
from fedtlu_fast.config.section import Section
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import parameters, type_names
from fedtlu_fast.registry import described, find


@dataclass(frozen=True)
class Parameter:
    """One parameter of a part.

    Attributes:
        setting: the setting that holds it; in a list, such as ``client_steps``, the key beside ``kind``.
        type: the values that it takes, such as ``float > 0``.
        default: its default; `inspect.Parameter.empty` if it has none.
        meaning: what the docstring of the part says.
    """

    setting: str
    type: str
    default: Any
    meaning: str


@dataclass(frozen=True)
class PartHelp:
    """What to know about a part.

    Attributes:
        summary: the first line of its docstring.
        places: the settings that choose such a part, the usual ones first.
        parameters: in their order, with the settings of the first place.
    """

    summary: str
    places: tuple[str, ...]
    parameters: tuple[Parameter, ...]


def help_on(name: str, field: str) -> PartHelp:
    """Imports a class or function by its dotted name and finds where it can be given.

    Args:
        name: ``package.module:Name``.
        field: the argument that gives the name, for the error.

    Raises:
        InputError: It cannot be imported, or no setting takes it.
    """
    found = find("rule", name, field)  # a dotted name means the same for all kinds of parts
    takers = [(place, chooser) for place, chooser, base in _choosers() if chooser.takes(found, base)]
    takers.sort(key=lambda taker: taker[0].startswith((*SECOND, "threats")))
    if not takers:
        raise InputError(
            field, name, "the name of a part: a function, or a subclass of one of our base classes"
        )
    place, chooser = takers[0]
    defaults, types, meanings = parameters(found), type_names(found), described(found)
    section = "" if place in _lists() else f"{place.rpartition('.')[0]}."
    own = tuple(
        Parameter(section + setting, types.get(key, ""), defaults[key], meanings.get(key, ""))
        for key, setting in chooser.settings_of(found).items()
        if key in defaults
    )
    summary = (inspect.getdoc(found) or "").partition("\n")[0]
    return PartHelp(summary, tuple(place for place, _ in takers), own)


def _choosers(model: type[Section] = RunConfig, prefix: str = "") -> Iterator[tuple[str, Chooser, type]]:
    """Yields each setting that chooses a part, with its marker and the class of its parts."""
    if issubclass(model, PartsSection):
        for name, chooser in model.choosers().items():
            yield prefix + name, chooser, _class_of(model, name)
    for name, info in model.model_fields.items():
        if isinstance(info.default, Section):
            yield from _choosers(type(info.default), f"{prefix}{name}.")
    if model is RunConfig:
        for name, section in _lists().items():
            for inner, chooser in section.choosers().items():
                yield name, chooser, _class_of(section, inner)


def _lists() -> dict[str, type[PartsSection]]:
    """Returns the settings that are lists of parts, with the section of an entry."""
    found: dict[str, type[PartsSection]] = {}
    for name, info in RunConfig.model_fields.items():
        for kind in get_args(info.annotation):
            if inspect.isclass(kind) and issubclass(kind, PartsSection):
                found[name] = kind
    return found


def _class_of(section: type[PartsSection], field: str) -> type:
    kind = section.model_fields[field].annotation
    assert isinstance(kind, type)
    return kind
