"""Options that several commands share, and the settings that they make."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtlu_fast.cli.console import be_quiet, note
from fedtlu_fast.errors import InputError, InterruptedRunError, ResumableError
from fedtlu_fast.places import absolute, at_home
from fedtlu_fast.shown import shell_word

if TYPE_CHECKING:
    from fedtlu_fast.config import RunConfig
    from fedtlu_fast.runs.results import ArmResult

Preset = Annotated[
    str | None,
    typer.Option(help="Settings that ship with the package (quickstart unless --config is given)."),
]
Config = Annotated[
    Path | None,
    typer.Option(
        help="A YAML file of settings.",
        metavar="FILE",
        parser=at_home,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, such as rounds=20 or training.lr=0.1; may be repeated."),
]
Model = Annotated[
    str | None,
    typer.Option(
        help="Pre-trained model: a name (gpt2), a directory or a .gguf file. Default: a small fresh one."
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        help="Task: language_modelling (default), tagging, classification, image_classification or "
        "text_classification; digits and topics are the last two with their presets."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="Data source: pydoc, text:PATH, ptb:DIR, pycode, udpos:PATH, digits, cifar10:PATH, images:DIR, "
        "topics, texts:PATH, hf:NAME[:CONFIG][@REVISION], ...; `fedtlu settings` lists all."
    ),
]
Partition = Annotated[
    str | None,
    typer.Option(
        help="Partition: iid, dirichlet[:ALPHA], shard[:SHARDS], natural, ...; `fedtlu settings` lists all."
    ),
]
Rounds = Annotated[int | None, typer.Option(help="Number of rounds, warm-up included.")]
Clients = Annotated[int | None, typer.Option(help="Number of clients in the federation.")]
Backend = Annotated[str | None, typer.Option(help="Backend: auto, reference, native or triton.")]
Device = Annotated[str | None, typer.Option(help="Device: cpu, cuda or cuda:N.")]
Executor = Annotated[
    str | None,
    typer.Option(
        help="Executor, which trains the clients: auto, serial, vectorized, processes or ray[:ADDRESS]."
    ),
]
Workers = Annotated[
    int | None, typer.Option(help="Number of workers of processes and ray (default: the number of cores).")
]
Seed = Annotated[int | None, typer.Option(help="Seed of all draws.")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="New directory for the files (default: a new one in runs/).", metavar="DIR", parser=at_home
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option("--csv", help="Write the rows to this CSV file.", metavar="FILE", parser=at_home),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=be_quiet, help="Show neither progress nor closing remarks.")
]


def settings_from(
    preset: str | None, config: Path | None, overrides: list[str] | None, **given: Any
) -> RunConfig:
    """The settings from preset, file, --set and the other options; later ones override earlier ones.

    Args:
        preset: the preset's name, or None.
        config: the file, or None.
        overrides: the overrides of --set.
        given: values of dotted settings, with ``__`` for the dot (``data__source``); None means not given. A
            task with the name of a preset brings that preset.
    """
    from fedtlu_fast.config.settings import DEFAULT_PRESET, load_config, presets

    if preset is None and config is None:
        preset = given["task"] if given.get("task") in presets() else DEFAULT_PRESET
    return from_everywhere(load_config(preset, config, [*(overrides or []), *_named(given)]))


def from_everywhere(config: RunConfig) -> RunConfig:
    """The settings with absolute paths, so that the run can be resumed from another directory."""
    data, participation = config.data, config.participation
    found: dict[str, Any] = {"data": data.model_copy(update={"source": data.source.located()})}
    if participation.trace is not None:
        trace = {"trace": absolute(participation.trace)}
        found["participation"] = participation.model_copy(update=trace)
    if config.model.pretrained is not None:
        pretrained = {"pretrained": absolute(config.model.pretrained)}
        found["model"] = config.model.model_copy(update=pretrained)
    return config.model_copy(update=found)


def _named(given: Mapping[str, Any]) -> list[str]:
    """The options that have a setting of their own, as overrides."""
    # Quoted, because --set takes YAML, which may read a path as a comment or a mapping.
    settings = {key.replace("__", "."): value for key, value in given.items() if value is not None}
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def refuse_beside_resume(**given: Any) -> None:
    """Raises for options that a resumed run would ignore.

    Args:
        given: option -> value, as for `settings_from`; None or an empty list means not given.

    Raises:
        InputError: one is given.
    """
    for name, value in given.items():
        if value is not None and value != []:
            raise InputError(
                f"--{name.split('__')[0 if name == 'model__pretrained' else -1]}",
                value if not isinstance(value, Path) else str(value),
                "nothing beside --resume: a resumed run keeps its settings",
                "Leave it out, or start a new run without --resume.",
            )


FREE = ("execution.", "checkpoint.", "rounds")
"""Settings that may change when a run is resumed: execution, checkpoints and the number of rounds."""


FREE_OF_COMPARISONS = (
    "execution.client_errors",
    "execution.client_seconds",
    "execution.retries",
    "checkpoint.",
)
"""The subset of these that may change for a comparison, whose executor is fixed for all its arms."""


def check_free(overrides: list[str] | None, free: tuple[str, ...] = FREE) -> list[str]:
    """Checks the overrides of --set beside --resume.

    Raises:
        InputError: one changes a setting that must stay the same.
    """
    from fedtlu_fast.config.settings import full_key

    fixed = [text for text in overrides or [] if not full_key(text.partition("=")[0]).startswith(free)]
    refuse_beside_resume(set=fixed)
    return overrides or []


def resumed(directory: Path, overrides: list[str] | None, **given: Any) -> RunConfig:
    """The settings of a run to resume, with the changes that are allowed.

    Args:
        directory: directory of the run.
        overrides: the overrides of --set.
        given: see `settings_from`.

    Raises:
        InputError: there is no such run, or a change is not allowed.
    """
    from fedtlu_fast.config.settings import laid_over
    from fedtlu_fast.runs.directory import RunDirectory

    changes = check_free(overrides)
    _, config = RunDirectory.open(directory)
    return laid_over(config, [*changes, *_named(given)])


@contextmanager
def saying_how_to_go_on(command: str, directory: Path) -> Iterator[None]:
    """Gives errors that stop a run or a comparison inside a message that says how to resume it.

    Args:
        command: ``run`` or ``compare``.
        directory: directory of the run or the comparison.
    """
    how = f"go on with: fedtlu {command} --resume {shell_word(directory)}"
    try:
        yield
    except ResumableError as error:
        begun = os.path.exists(directory / "config.yaml")
        error.go_on = how if begun else "give the same command again"
        raise
    except KeyboardInterrupt as interrupt:
        begun = os.path.exists(directory / "config.yaml")
        raise InterruptedRunError(how if begun else "nothing was written yet", interrupt) from None


def say_diverged(arms: Sequence[ArmResult]) -> None:
    """Names the runs of a comparison that diverged, so that nobody takes their figures for results."""
    for arm in arms:
        if (last := arm.summary.get("diverged_round")) is not None:
            text = f"{arm.selector}, seed {arm.seed}: diverged, its test loss after round {last} is no number"
            note(text)


@contextmanager
def fresh_directory(name: str) -> Iterator[Path]:
    """A new directory in runs/, named after the time; it is removed if nothing was written into it.

    It is created here, not only named: of two runs that begin in the same second, one takes another name.

    Raises:
        InputError: it cannot be created.
    """
    folder = Path("runs")
    stem, made = f"{time.strftime('%Y%m%d-%H%M%S')}-{name}", not folder.exists()
    for number in count(1):
        path = folder / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir(parents=True)
            break
        except OSError as error:
            if not path.exists():
                expected = f"a directory that can be made; {error.strerror}"
                raise InputError("--out", str(path), expected, "Name another.") from error
    try:
        yield path
    finally:
        with suppress(OSError):
            path.rmdir()
            if made:
                folder.rmdir()
