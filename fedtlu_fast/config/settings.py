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

from pydantic import BaseModel, TypeAdapter, ValidationError

from fedtlu_fast.config import RunConfig, Section
from fedtlu_fast.config.parts_section import READING, PartsSection, Unfound
from fedtlu_fast.errors import InputError, check_kind, nearest, not_one_of, shorten
from fedtlu_fast.shown import shell_word
from fedtlu_fast.validation import cause_of, input_error
from fedtlu_fast.wording import ALL_SETTINGS, OVERRIDES, either
from fedtlu_fast.yaml_text import YamlTextError, parse_yaml, read_yaml_file

logger = logging.getLogger("fedtlu_fast")

EITHER = {"local_steps": "local_epochs", "local_epochs": "local_steps"}
"""Pairs of settings that exclude each other: giving one of a pair removes the other."""

SECOND = ("pretraining.", "model.lora.", "client_selection.")
"""Sections that yield to the others if a short name is ambiguous: `lr` means ``training.lr``."""


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
                if any(isinstance(own, Unfound) for section in sections for own in section.parts()):
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
        raise _as_input_error(error) from None


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


def _read_yaml(path: Path) -> dict[str, Any]:
    return _settings_of(read_yaml_file(path, "config"), path)


def _settings_of(tree: Any, path: Path) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise InputError("config", str(path), f"a YAML mapping of settings, not {type(tree).__name__}")
    return tree


def _parse_override(override: str) -> dict[str, Any]:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise InputError(OVERRIDES, override, "key=value, such as rounds=20 or training.lr=0.1")
    try:
        value = parse_yaml(text)
    except YamlTextError as error:
        raise InputError(OVERRIDES, override, f"a YAML value after the equals sign: {error}") from None
    tree: Any = value
    for part in reversed(full_key(key.strip()).split(".")):
        tree = {part: tree}
    return _spelled_out(RunConfig, tree)


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
    return {old: f"{name}.{old}" for name, section in _sections(RunConfig).items() for old in section.renamed}


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
    for name, section in _sections(model).items():
        if name in found:
            try:
                found[name] = section.by_new_names(section.spelled_out(found[name]))
            except InputError as error:
                whole = f"{where}{name}"
                raise error.of(whole if error.field == name else f"{whole}.{error.field}") from None
            if isinstance(found[name], Mapping):
                found[name] = _spelled_out(section, found[name], f"{where}{name}.")
    return found


def _sections(model: type[Section]) -> dict[str, type[Section]]:
    fields = model.model_fields.items()
    return {name: type(info.default) for name, info in fields if isinstance(info.default, Section)}


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
    for name, section in _sections(model).items():
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


def _as_input_error(error: ValidationError) -> InputError:
    first = error.errors()[0]
    cause = cause_of(first)
    if cause is not None:
        # The error of one of our checks is complete but for the section.
        section = ".".join(str(part) for part in first["loc"] if part not in cause.field.split("."))
        within = not section or cause.field.startswith(f"{section}.")
        return cause.of(cause.field if within else f"{section}.{cause.field}")
    where = [
        str(part) for part in first["loc"] if str(part) not in ("int", "float", "dict[str,union[int,float]]")
    ]
    if len(where) > 1:  # the parameters of some parts are nested
        where = [*where[:-1], *where[-1].split(".")]
    if first["type"] == "extra_forbidden":
        return _unknown(where, first["input"])
    field = ".".join(where) or "config"
    return input_error(first, field, setting_paths().get(field, ""))


def _unknown(where: Sequence[str], value: object) -> InputError:
    """Returns the error for an unknown key; it suggests the setting that was probably meant."""
    field, expected = ".".join(where), "the name of a setting; this key is unknown"
    if field in setting_paths():  # one key with dots in a mapping, which should be nested
        nested = "{'" + "': {'".join(field.split(".")) + f"': {shorten(value)}" + "}" * (field.count(".") + 1)
        return InputError(field, value, "nested sections instead of a dotted key", f"Write {nested}.")
    if field == "preset" and isinstance(value, str):
        fix = f"Give it as {either(f'load_config({shorten(value)})', f'--preset {shell_word(value)}')}."
        return InputError(field, value, expected, fix)
    meant = _meant(where)
    return InputError(field, value, expected, "" if meant else f"{ALL_SETTINGS} lists all names.", meant)


def _meant(where: Sequence[str]) -> str:
    """Returns the setting or section most like an unknown one: on its level, else deeper, else anywhere."""
    *section, name = where
    inside = "".join(f"{part}." for part in section)
    paths = sorted(setting_paths(), key=lambda path: path.startswith(SECOND))
    below = [path for path in paths if path.startswith(inside)]
    level = {part: inside + part for path in below for part in [path.removeprefix(inside).partition(".")[0]]}
    deeper, anywhere = ({p.rpartition(".")[2]: p for p in reversed(found)} for found in (below, paths))
    longer = {part: path for part, path in deeper.items() if name and part.startswith(f"{name}_")}
    # A close match wins wherever it is; a weaker match counts only on the same level or below.
    looked = [(level, 0.75), (longer, 0.0), (deeper, 0.75), (anywhere, 0.75), (level, 0.6)]
    if section:
        looked.append((deeper, 0.6))
    for known, least in looked:
        if near := nearest(name, known, least):
            return known[near]
    return ""
