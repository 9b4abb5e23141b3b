"""Reads the settings of a run and reports errors in them.

A YAML file or a mapping goes over a preset, and ``key=value`` overrides go over both.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from fedtlu_fast.config import RunConfig, Section
from fedtlu_fast.config.chooser import Unfound
from fedtlu_fast.config.names import full_key, sections_of
from fedtlu_fast.config.parts_section import READING, PartsSection
from fedtlu_fast.config.refusals import as_input_error
from fedtlu_fast.errors import InputError, check_kind, not_one_of, shorten
from fedtlu_fast.wording import OVERRIDES, either
from fedtlu_fast.yaml_text import YamlTextError, flat, parse_yaml, read_yaml_file

logger = logging.getLogger("fedtlu_fast")

EITHER = {"local_steps": "local_epochs", "local_epochs": "local_steps"}
"""Pairs of settings that exclude each other: giving one of a pair removes the other."""


def presets() -> list[str]:
    """Returns the names of the presets, the complete settings that ship with the package."""
    folder = resources.files("fedtlu_fast.presets")
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


DEFAULT_PRESET = "quickstart"
"""The preset of ``fedtlu run`` and `simulate` if they get neither a preset nor complete settings."""


def load_config(
    preset: str | None = None,
    path: Path | None = None,
    overrides: Sequence[str] = (),
    *,
    settings: Mapping[str, Any] | None = None,
) -> RunConfig:
    """Builds the settings of a run: a preset, then a file and a mapping over it, then overrides over all.

    Args:
        preset: a name from `presets`; None starts from the defaults of `RunConfig`.
        path: a YAML file.
        overrides: ``key=value`` with a dotted key (``training.lr=0.1``) and a YAML value. The last part of
            a key is enough (``lr=0.1``) if only one setting has it. If `rounds` is given without
            `warmup_rounds` and leaves no round after the warm-up, the warm-up is shortened in proportion,
            with a warning.
        settings: a nested mapping, as a YAML file gives it.

    Raises:
        InputError: A key is unknown, or a value has a wrong type or is impossible.
    """
    tree: dict[str, Any] = {}
    given: dict[str, Any] = {}
    if preset is not None:
        if preset not in presets():
            raise not_one_of(
                "preset",
                preset,
                presets(),
                see=either("fedtlu_fast.config.settings.presets()", "fedtlu settings"),
            )
        text = resources.files("fedtlu_fast.presets").joinpath(f"{preset}.yaml").read_text("utf-8")
        tree = _spelled_out(RunConfig, parse_yaml(text))
    if path is not None:
        given_in_file = _spelled_out(RunConfig, _read_yaml(path))
        _lay_over_preset_(tree, given_in_file)
    if settings is not None:
        check_kind("config", settings, Mapping, "a mapping of settings, as {'rounds': 20}, or a RunConfig")
        given_here = _spelled_out(RunConfig, dict(settings))
        _lay_over_preset_(tree, given_here)
    _check_said_once(overrides)
    for override in overrides:
        _merge(given, _parse_override(override))
    _lay_over_preset_(tree, given)
    return parse_config(tree)


def read_config(text: str, where: Path) -> RunConfig:
    """Reads the settings that a run left, from a text that the caller has read and perhaps checked.

    An own part of the user that cannot be imported here becomes an `Unfound`: the run can then be shown, but
    not resumed.

    Args:
        text: the settings in YAML.
        where: the file that the text comes from, for the message.

    Raises:
        InputError: A key is unknown, or a value has a wrong type or is impossible.
    """
    try:
        tree = parse_yaml(text)
    except YamlTextError as error:
        raise InputError("config", str(where), f"readable YAML; {error}") from None
    settings = _settings_of(tree, where)
    try:
        return parse_config(settings)
    except InputError:
        unfound = dict(_sections_with_unfound(settings))
        if not unfound:
            raise
        found = {key: value for key, value in settings.items() if key not in unfound}
        return parse_config(found).model_copy(update=unfound)


def _sections_with_unfound(tree: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yields the valid sections, and lists of sections, in which some part cannot be imported."""
    for name, info in RunConfig.model_fields.items():
        if name in tree and isinstance(info.default, Section | tuple):
            with suppress(ValidationError):
                kind: Any = info.annotation
                found = TypeAdapter(kind).validate_python(tree[name], context=READING)
                sections = found if isinstance(found, tuple) else (found,)
                unfound = [own for section in sections for own in section.parts() if isinstance(own, Unfound)]
                for own in unfound:
                    # The section itself does not know the name that it has in the settings.
                    own.error = own.error.of(f"{name}.{own.error.field.partition('.')[2]}")
                if unfound:
                    yield name, found


def laid_over(
    config: RunConfig, overrides: Sequence[str], over: Mapping[str, Any] | None = None
) -> RunConfig:
    """Returns settings with other settings laid over them.

    Args:
        config: complete settings.
        overrides: ``key=value`` texts, as for `load_config`.
        over: a nested mapping, which is laid over `config` before the overrides.

    Raises:
        InputError: The settings do not fit together.
    """
    tree = config.model_dump(mode="json")
    for section in (_spelled_out(RunConfig, over or {}), *map(_parse_override, overrides)):
        _lay_over(tree, section)
    return parse_config(tree)


def with_settings(tree: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a nested mapping of settings with another laid over it; neither is changed or checked."""
    own = _spelled_out(RunConfig, tree)
    found = {key: dict(value) if isinstance(value, Mapping) else value for key, value in own.items()}
    _lay_over(found, _spelled_out(RunConfig, over))
    return found


def parse_config(tree: Mapping[str, Any]) -> RunConfig:
    """Checks a nested mapping and returns its settings; what it lacks has its default.

    Raises:
        InputError: A setting is wrong; the error names the first one.
    """
    check_kind("config", tree, Mapping, "a mapping of settings, as {'rounds': 20}, or a RunConfig")
    try:
        return RunConfig.model_validate(dict(tree))
    except ValidationError as error:
        raise as_input_error(error, tree) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    return _settings_of(read_yaml_file(path, "config"), path)


def _settings_of(tree: Any, path: Path) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise InputError("config", str(path), f"a YAML mapping of settings, not {type(tree).__name__}")
    return tree


def _parse_override(override: str) -> dict[str, Any]:
    key, tree = _key_and_value(override)
    for part in reversed(key.split(".")):
        tree = {part: tree}
    return _spelled_out(RunConfig, tree)


def _key_and_value(override: str) -> tuple[str, Any]:
    """Returns the dotted name of the setting in an override, and its value."""
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise InputError(OVERRIDES, override, "key=value, such as rounds=20 or training.lr=0.1")
    try:
        return full_key(key.strip()), parse_yaml(text)
    except YamlTextError as error:
        raise InputError(OVERRIDES, override, f"a YAML value after the equals sign: {error}") from None


def _check_said_once(overrides: Sequence[str]) -> None:
    """Refuses a setting that is given, and also follows with another value from a short form.

    A short form is a name with values, such as ``partition=dirichlet:0.1``.
    """
    given: dict[str, Any] = {}
    follow: dict[str, tuple[str, Any]] = {}
    for override in overrides:
        key, value = _key_and_value(override)
        for setting, own in flat(_parse_override(override)):
            if isinstance(value, str) and setting != key:
                follow[setting] = override, own
            else:
                given[setting] = own
    for setting, (override, own) in follow.items():
        if setting in given and given[setting] != own:
            expected = f"no value beside {override}, which sets it to {shorten(own)}"
            raise InputError(setting, given[setting], expected, "Give one of them.")


def _shorten_warmup_(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Shortens the warm-up in proportion if the new number of rounds leaves no round after it."""
    rounds, warmup = over.get("rounds"), tree.get("warmup_rounds")
    before = tree.get("rounds", RunConfig.model_fields["rounds"].default)
    if "warmup_rounds" in over:
        return
    if not (isinstance(rounds, int) and isinstance(warmup, int) and isinstance(before, int)):
        return  # absent, or for validation to refuse
    if 0 < rounds <= warmup < before:
        tree["warmup_rounds"] = warmup * rounds // before
        logger.warning(
            "rounds=%d leaves no round after %d warm-up rounds, so this run has warmup_rounds=%d; "
            "set warmup_rounds to choose another number",
            rounds,
            warmup,
            tree["warmup_rounds"],
        )


def _spelled_out(model: type[Section], tree: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """Expands sections that are given in short form to mappings, and replaces old names by new ones."""
    found = dict(tree)
    for name, section in sections_of(model).items():
        if name in found:
            try:
                found[name] = section.by_new_names(section.spelled_out(found[name]))
            except InputError as error:
                whole = f"{where}{name}"
                raise error.of(whole if error.field == name else f"{whole}.{error.field}") from None
            if isinstance(found[name], Mapping):
                found[name] = _spelled_out(section, found[name], f"{where}{name}.")
    return found


def _lay_over_preset_(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Lays settings over a preset, whose warm-up and `clients_per_batch` yield if they do not fit."""
    _shorten_warmup_(tree, over)
    above, below = over.get("execution"), tree.get("execution")
    if isinstance(above, Mapping) and isinstance(below, dict) and above.get("executor") == "vectorized":
        below.pop("clients_per_batch", None)
    _lay_over(tree, over)


def _lay_over(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    """Lays settings over others in place, and drops the parameters of the parts that this replaces."""
    _forget_(RunConfig, tree, over)
    _merge(tree, over)


def _forget_(model: type[Section], tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    for name, section in sections_of(model).items():
        below, above = tree.get(name), over.get(name)
        if isinstance(below, dict) and isinstance(above, Mapping):
            if issubclass(section, PartsSection):
                section.forget_(below, above)
            _forget_(section, below, above)


def _merge(tree: dict[str, Any], over: Mapping[str, Any]) -> None:
    for key, value in over.items():
        if key in EITHER and value is not None:
            tree.pop(EITHER[key], None)
        if isinstance(value, Mapping) and isinstance(tree.get(key), dict) and key != "keep":
            _merge(tree[key], value)
        else:
            tree[key] = value
