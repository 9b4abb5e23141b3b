"""Implements ``fedtlu settings``."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer
from rich.table import Table

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import results
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import InputError, nearest

UNUSED = object()
ASKED = "WORD"
"""The name of the argument, in help and errors."""


def settings_command(
    word: Annotated[
        str | None,
        typer.Argument(
            help="Only settings with this word in their name or meaning; or package.module:Name of a part of "
            "your own, to see its parameters.",
            metavar=ASKED,
        ),
    ] = None,
    preset: options.Preset = None,
) -> None:
    """List settings with their meanings and their values in a preset.

    Other commands take a setting as --set KEY=VALUE, such as --set training.lr=0.1. The last part of a key
    is enough if only one setting has it (--set keep=3).
    """
    from fedtlu_fast.config.names import setting_paths
    from fedtlu_fast.config.settings import DEFAULT_PRESET, load_config, presets

    if word is not None and ":" in word:
        _show_part(word)
        return
    preset = preset or DEFAULT_PRESET
    tree = load_config(preset).model_dump()
    known = setting_paths()
    asked = (word or "").lower()
    chosen = {path: text for path, text in known.items() if asked in path.lower() or asked in text.lower()}
    if not chosen:
        expected = "a word in the name or meaning of a setting, or package.module:Name of a part of your own"
        near = nearest(asked, [path.rpartition(".")[2] for path in known])
        raise InputError(ASKED, word, expected, near=near)
    about = "Settings" if word is None else f"Settings with “{word}”"
    table = _table(f"{about}, with their values in preset {preset}", "setting", "value", "meaning")
    for path, text in chosen.items():
        value: Any = tree
        for step in path.split("."):
            # A setting that is missing is a parameter of a part that this preset does not use.
            value = value.get(step, UNUSED) if isinstance(value, dict) else UNUSED
        table.add_row(path, "" if value is UNUSED else _shown(value), text)
    show(table, "")
    if word is None:
        results.print(f"Presets: {', '.join(presets())}", highlight=False)


def _show_part(name: str) -> None:
    """Prints where a part can be given, and its parameters."""
    from fedtlu_fast.config.part_help import help_on

    part = help_on(name, ASKED)
    if part.parameters:
        table = _table(f"{name}: {part.summary}", "setting", "type", "default", "meaning")
        for own in part.parameters:
            default = "(must be given)" if own.default is inspect.Parameter.empty else _shown(own.default)
            table.add_row(own.setting, own.type, default, own.meaning)
        show(table, "")
    else:
        results.print(f"{name} has no parameters. {part.summary}".strip(), markup=False, highlight=False)
    given = ", or ".join(f"{place}={name}" for place in part.places)
    results.print(f"Give it as {given}.", markup=False, highlight=False, soft_wrap=True)


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def _shown(value: Any) -> str:
    from fedtlu_fast.yaml_text import dump_yaml

    return dump_yaml(value, flow=True).removesuffix("\n").removesuffix("\n...")
