"""Errors in settings: what pydantic found becomes one message in the words of the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, get_args

from pydantic import ValidationError

from fedtlu_fast.config.names import SECOND, setting_paths
from fedtlu_fast.config.parts_section import PartsSection
from fedtlu_fast.config.run import RunConfig
from fedtlu_fast.config.section import Section
from fedtlu_fast.errors import InputError, choice, nearest, shorten
from fedtlu_fast.shown import shell_word
from fedtlu_fast.validation import cause_of, input_error
from fedtlu_fast.wording import ALL_SETTINGS, either


def as_input_error(error: ValidationError, tree: Mapping[str, Any]) -> InputError:
    """Returns the error for the first thing that is wrong.

    Args:
        error: what pydantic found.
        tree: the settings as they were given.
    """
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
        return _unknown(where, first["input"], tree)
    field = ".".join(where) or "config"
    inside = [path for path in setting_paths() if path.startswith(f"{field}.")]
    if first["type"] == "model_type" and inside:
        names = [path.removeprefix(f"{field}.") for path in inside]
        return InputError(
            field, first["input"], f"a section with {choice(names)}", f"Set {inside[0]}, for example."
        )
    return input_error(first, field, setting_paths().get(field, ""))


def _unknown(where: Sequence[str], value: object, tree: Mapping[str, Any]) -> InputError:
    """Returns the error for an unknown key.

    It suggests the setting that was probably meant, and lists the parameters of the parts that are chosen in
    the section.
    """
    field, expected = ".".join(where), "the name of a setting; this key is unknown"
    if field in setting_paths():  # one key with dots in a mapping, which should be nested
        nested = "{'" + "': {'".join(field.split(".")) + f"': {shorten(value)}" + "}" * (field.count(".") + 1)
        return InputError(field, value, "nested sections instead of a dotted key", f"Write {nested}.")
    if field == "preset" and isinstance(value, str):
        fix = f"Give it as {either(f'load_config({shorten(value)})', f'--preset {shell_word(value)}')}."
        return InputError(field, value, expected, fix)
    taken = _taken(where[:-1], tree)
    own = {parameter: setting for part in taken.values() for parameter, setting in part.items()}
    own |= {setting: setting for setting in own.values()}
    near = own.get(nearest(where[-1], own, 0.75), "")
    meant = ".".join([*where[:-1], near]) if near else _meant(where)
    told = [
        f"{part} takes {', '.join(settings.values()) or 'no parameters'}" for part, settings in taken.items()
    ]
    fix = "; ".join(told) + ". " if told else ""
    if not meant:
        fix += f"{ALL_SETTINGS} lists all names."
    return InputError(field, value, expected, fix.rstrip(), meant)


def _taken(where: Sequence[str], tree: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Maps the parts that are chosen in a section, such as ``rule=krum``, to their parameters' settings."""
    section: Any = RunConfig
    inner: Any = tree
    for step in where:
        if step.isdigit() and isinstance(inner, list | tuple):  # a list of sections, such as threats
            inner = inner[int(step)]
            continue
        info = section.model_fields.get(step) if issubclass(section, Section) else None
        if info is None or not isinstance(inner, Mapping):
            return {}
        inner = inner.get(step, {})
        kind: Any = info.annotation
        section = kind if isinstance(kind, type) else next(iter(get_args(kind)), object)
    if not (isinstance(inner, Mapping) and isinstance(section, type) and issubclass(section, PartsSection)):
        return {}
    found: dict[str, dict[str, str]] = {}
    for field, chooser in section.choosers().items():
        given = inner.get(field)
        made = section.model_fields[field].default if given is None else given
        with suppress(InputError):  # the part is an object without a name
            name = made if isinstance(made, str) else chooser.name_of(made)
            part = chooser.found(field, made) if isinstance(made, str) else type(made)
            found[f"{field}={name}"] = chooser.settings_of(part)
    return found


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
