"""Names of settings: all of them, and the setting that a short name stands for."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel

from fedtlu_fast.config.parts_section import PartsSection
from fedtlu_fast.config.run import RunConfig
from fedtlu_fast.config.section import Section
from fedtlu_fast.errors import InputError
from fedtlu_fast.wording import OVERRIDES

SECOND = ("pretraining.", "model.lora.", "client_selection.")
"""Sections that yield to the others if a short name is ambiguous: `lr` means ``training.lr``."""


def setting_paths() -> dict[str, str]:
    """Returns the dotted name of every setting with its description."""
    return {".".join(path): text for path, text in _walk(RunConfig, ())}


def _walk(model: type[BaseModel], prefix: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    for name, info in model.model_fields.items():
        default = info.default
        if isinstance(default, Section):
            yield from _walk(type(default), (*prefix, name))
        elif not info.exclude:
            yield (*prefix, name), info.description or ""
    if issubclass(model, PartsSection):
        for name, text in model.part_settings().items():
            yield (*prefix, name), text


def full_key(key: str) -> str:
    """Returns the dotted name of a setting that is given by its last part.

    A key that no setting has is returned unchanged; validation refuses it later.

    Raises:
        InputError: Several settings have this last part.
    """
    sections = {name for name, info in RunConfig.model_fields.items() if isinstance(info.default, Section)}
    known = setting_paths()
    if key in known or key in sections or "." in key:
        return key
    matches = [path for path in known if path.rpartition(".")[2] == key]
    matches = [path for path in matches if not path.startswith(SECOND)] or matches
    if len(matches) > 1:
        raise InputError(OVERRIDES, key, f"one of {', '.join(matches)}: the short name is ambiguous")
    return matches[0] if matches else _old_paths().get(key, key)


def _old_paths() -> dict[str, str]:
    """Maps the old name of each renamed setting to its dotted old name, with the section."""
    return {
        old: f"{name}.{old}" for name, section in sections_of(RunConfig).items() for old in section.renamed
    }


def sections_of(model: type[Section]) -> dict[str, type[Section]]:
    """Returns the sections in a section, by name; lists of sections are not among them."""
    fields = model.model_fields.items()
    return {name: type(info.default) for name, info in fields if isinstance(info.default, Section)}
