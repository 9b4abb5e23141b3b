"""Implements ``fedtlu settings``."""

from __future__ import annotations

import inspect
import json
import shlex
import textwrap
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from fedtlu_fast.cli import completion, options
from fedtlu_fast.cli.console import results
from fedtlu_fast.cli.known_settings import KnownSetting, KnownSettings, in_one_line, known_settings
from fedtlu_fast.cli.tables import show
from fedtlu_fast.errors import InputError, nearest, not_one_of

ASKED = "WORD"
"""The name of the argument, in help and errors."""


def settings_command(
    word: Annotated[
        str | None,
        typer.Argument(
            help="Only settings with this word in their name or meaning, with type, default and an example; "
            "or package.module:Name of a part of your own, to see its parameters.",
            metavar=ASKED,
            autocompletion=completion.settings_without_value,
        ),
    ] = None,
    preset: options.Preset = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the settings as JSON.")] = False,
) -> None:
    """List settings with their meanings and their values in a preset.

    Other commands take a setting as --set KEY=VALUE, such as --set training.lr=0.1. The last part of a key
    is enough if only one setting has it (--set keep=3).

    \b
      fedtlu settings lr           settings about learning rates
      fedtlu settings momentum     of clients and of the server
    """

    if word is not None and ":" in word:
        _show_part(word)
        return
    table = known_settings()
    preset = preset or table.default_preset
    if preset not in table.presets:
        raise not_one_of("preset", preset, table.presets)
    asked = (word or "").lower()
    chosen = {
        path: one
        for path, one in table.settings.items()
        if asked in path.lower() or asked in one.meaning.lower()
    }
    if not chosen:
        expected = "a word in the name or meaning of a setting, or package.module:Name of a part of your own"
        near = nearest(asked, [path.rpartition(".")[2] for path in table.settings])
        raise InputError(ASKED, word, expected, near=near)
    if as_json:
        rows = {path: {**asdict(one), "value": table.value(path, preset)} for path, one in chosen.items()}
        typer.echo(json.dumps(rows, indent=1))
    elif word is None:
        _show_all(table, preset)
    else:
        # First the settings that have this very name, then those whose names contain the word.
        order = sorted(chosen, key=lambda path: (path.rpartition(".")[2] != asked, asked not in path))
        for path in order:
            _show_one(path, chosen[path], preset)


def _show_all(table: KnownSettings, preset: str) -> None:
    title = f"Settings, with their values in preset {preset}"
    shown = _table(title, "setting", "value", "meaning")
    for path, one in table.settings.items():
        shown.add_row(path, in_one_line(table.value(path, preset)), one.meaning)
    show(shown, "")
    results.print(f"Presets: {', '.join(table.presets)}", highlight=False)


def _show_one(path: str, one: KnownSetting, preset: str) -> None:
    """Prints a setting with its type, default, meaning and an example."""
    own = f"; {in_one_line(one.presets[preset])} in preset {preset}" if preset in one.presets else ""
    results.print(path, style="bold", highlight=False, markup=False)
    for text in (f"{one.type}; default {in_one_line(one.default)}{own}", one.meaning):
        wrapped = textwrap.fill(
            text, results.width, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False
        )
        results.print(wrapped, highlight=False, markup=False)
    if one.example:
        example = " ".join(f"--set {shlex.quote(text)}" for text in one.example)
        results.print(f"    {example}", highlight=False, markup=False, soft_wrap=True)


def _show_part(name: str) -> None:
    """Prints where a part can be given, and its parameters."""
    from fedtlu_fast.config.part_help import help_on

    part = help_on(name, ASKED)
    if part.parameters:
        table = _table(f"{name}: {part.summary}", "setting", "type", "default", "meaning")
        for own in part.parameters:
            has_default = own.default is not inspect.Parameter.empty
            default = in_one_line(own.default) if has_default else "(must be given)"
            table.add_row(own.setting, own.type, default, own.meaning)
        show(table, "")
    else:
        results.print(f"{name} has no parameters. {part.summary}".strip(), markup=False, highlight=False)
    given = ", or ".join(f"{place}={name}" for place in part.places)
    results.print(f"Give it as {given}.", markup=False, highlight=False, soft_wrap=True)
    first, setting = part.places[0], part.parameters[0].setting if part.parameters else "."
    if "." not in setting and "." not in first:  # an entry of a list
        more = f"{first}=[{{kind: {name}, {setting}: ...}}]"
        results.print(
            f"With parameters: --set {shlex.quote(more)}", markup=False, highlight=False, soft_wrap=True
        )


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold")
    return table
