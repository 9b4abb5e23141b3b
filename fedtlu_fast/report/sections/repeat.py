"""The section that says how to get the same result again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fedtlu_fast.report.pages.content import Command, Notes, Part, Section
from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.report.sections.took_part import OWN_DATA
from fedtlu_fast.runs.directory import CONFIG
from fedtlu_fast.shown import shell_word

SAME = (
    "The same settings give the same bits on the same machine and versions. On another machine the last "
    "digits may differ."
)
IN_PYTHON = (
    "This run was made by Python code (Federation), which holds its model and data. Make the Federation "
    "again with the settings below, and call its run method."
)
SCRIPT = "__main__:"
IN_SCRIPT = "Some parts were defined in a script (their names begin with __main__): run that script again."
SETTINGS = "All settings (save them as config.yaml)"


def repeat_run(settings: RunSettings, out: Path) -> Section:
    """Returns the section of one run.

    Args:
        settings: its settings.
        out: its directory, as the user names it.
    """
    command = f"fedtlu run --config {shell_word(out / CONFIG)}"
    return _section(settings, [Command("The same run", command)])


def repeat_comparison(
    settings: RunSettings, out: Path, selectors: Sequence[str], seeds: Sequence[int]
) -> Section:
    """Returns the section of a comparison.

    Args:
        settings: the settings that its arms share.
        out: its directory, as the user names it.
        selectors: names of the arms.
        seeds: consecutive numbers.
    """
    command = (
        f"fedtlu compare --config {shell_word(out / CONFIG)} \\\n"
        f"  --selectors {shell_word(','.join(selectors))} --seed {seeds[0]} --seeds {len(seeds)}"
    )
    return _section(settings, [Command("The same comparison", command)])


def repeat_experiment(settings: RunSettings, commands: Sequence[tuple[str, str]]) -> Section:
    """Returns the section of an experiment.

    Args:
        settings: those of its first condition.
        commands: for each title the command.
    """
    return _section(settings, [Command(title, command) for title, command in commands])


def _section(settings: RunSettings, commands: Sequence[Part]) -> Section:
    parts = [Notes([IN_PYTHON])] if settings.source == OWN_DATA else list(commands)
    if SCRIPT in settings.text or any(isinstance(one, Command) and SCRIPT in one.text for one in commands):
        parts = [Notes([IN_SCRIPT])]
    return Section(
        "repeat", "How to repeat it", [*parts, Command(SETTINGS, settings.text, folded=True)], SAME
    )
