"""Implements ``fedtlu settings``."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import results
from fedtlu_fast.cli.tables import show

UNUSED = object()


def settings_command(preset: options.Preset = None) -> None:
    """List every setting with its meaning and its value in a preset.

    Other commands take a setting as --set KEY=VALUE, such as --set training.lr=0.1. The last part of a key
    is enough if only one setting has it (--set keep=3).
    """
    from fedtlu_fast.config.names import setting_paths
    from fedtlu_fast.config.settings import DEFAULT_PRESET, load_config, presets
    from fedtlu_fast.yaml_text import dump_yaml

    preset = preset or DEFAULT_PRESET
    tree = load_config(preset).model_dump()
    table = Table(title=f"Settings, with their values in preset {preset}", title_justify="left")
    for head in ("setting", "value", "meaning"):
        table.add_column(head, overflow="fold")
    for path, text in setting_paths().items():
        value: Any = tree
        for step in path.split("."):
            # A setting that is missing is a parameter of a part that this preset does not use.
            value = value.get(step, UNUSED) if isinstance(value, dict) else UNUSED
        shown = (
            "" if value is UNUSED else dump_yaml(value, flow=True).removesuffix("\n").removesuffix("\n...")
        )
        table.add_row(path, shown, text)
    show(table, "")
    results.print(f"Presets: {', '.join(presets())}", highlight=False)
