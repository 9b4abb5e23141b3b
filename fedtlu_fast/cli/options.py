"""Options that `run` and `compare` share, and the settings that come of them."""

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
        help="language_modelling (default), tagging, classification, image_classification or "
        "text_classification; digits, topics: the last two with their presets."
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        help="Of the task: pydoc, text:PATH, ptb:DIR, pycode, udpos:PATH, digits, cifar10:PATH, images:DIR, "
        "topics, texts:PATH, hf:NAME[:CONFIG][@REVISION], ...; `fedtlu settings` has them all."
    ),
]
Partition = Annotated[
    str | None,
    typer.Option(
        help="iid, dirichlet[:ALPHA], shard[:SHARDS], natural, ...; `fedtlu settings` has them all."
    ),
]
Rounds = Annotated[int | None, typer.Option(help="Rounds in all, warm-up included.")]
Clients = Annotated[int | None, typer.Option(help="Clients in the federation.")]
Backend = Annotated[str | None, typer.Option(help="auto, reference, native or triton.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N.")]
Executor = Annotated[
    str | None,
    typer.Option(help="Who trains: auto, serial, vectorized, processes or ray[:ADDRESS]."),
]
Workers = Annotated[int | None, typer.Option(help="Workers of processes and ray (default: the cores).")]
Seed = Annotated[int | None, typer.Option(help="Seed of every draw.")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="New directory for the files (default: a new one in runs/).", metavar="DIR", parser=at_home
    ),
]
Csv = Annotated[
    Path | None, typer.Option("--csv", help="Write the rows there.", metavar="FILE", parser=at_home)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", callback=be_quiet, help="No progress and no closing remarks.")
]


def settings_from(
    preset: str | None, config: Path | None, overrides: list[str] | None, **given: Any
) -> RunConfig:
    """Settings from preset, file, --set and the options of their own, in this order.

    Args:
        preset: name, or None.
        config: file, or None.
        overrides: of --set.
        given: dotted settings with underscores doubled (``data__source``); None is not given. A task that
            is called as a preset brings it.
    """
    from fedtlu_fast.settings import DEFAULT_PRESET, load_config, presets

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
    """Options of their own as overrides."""
    # Quoted, since --set takes YAML: a path may hold what YAML reads as a comment or a mapping.
    settings = {key.replace("__", "."): value for key, value in given.items() if value is not None}
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def refuse_beside_resume(**given: Any) -> None:
    """Refuses options that a resumed run would not follow.

    Args:
        given: option -> value, as for `settings_from`; None or an empty list is not given.

    Raises:
        InputError: one is given.
    """
    for name, value in given.items():
        if value is not None and value != []:
            raise InputError(
                f"--{name.split('__')[0 if name == 'model__pretrained' else -1]}",
                value if not isinstance(value, Path) else str(value),
                "nothing beside --resume: what was begun keeps its settings",
                "Leave it out, or start anew without --resume.",
            )


FREE = ("execution.", "checkpoint.", "rounds")
"""What may change when a run goes on: who trains, what happens to failing clients, how to save, how long."""


FREE_OF_COMPARISONS = (
    "execution.client_errors",
    "execution.client_seconds",
    "execution.retries",
    "checkpoint.",
)
"""Of these, what may change when a comparison goes on: who trains was settled for all its arms."""


def check_free(overrides: list[str] | None, free: tuple[str, ...] = FREE) -> list[str]:
    """The overrides of --set beside --resume.

    Raises:
        InputError: one changes more than a run can go on with.
    """
    from fedtlu_fast.settings import full_key

    fixed = [text for text in overrides or [] if not full_key(text.partition("=")[0]).startswith(free)]
    refuse_beside_resume(set=fixed)
    return overrides or []


def resumed(directory: Path, overrides: list[str] | None, **given: Any) -> RunConfig:
    """The settings of a run that was begun, with those changes that a run can go on with.

    Args:
        directory: of the run.
        overrides: of --set.
        given: as for `settings_from`.

    Raises:
        InputError: there is no such run, or another setting is to change.
    """
    from fedtlu_fast.runs.directory import RunDirectory
    from fedtlu_fast.settings import laid_over

    changes = check_free(overrides)
    _, config = RunDirectory.open(directory)
    return laid_over(config, [*changes, *_named(given)])


@contextmanager
def saying_how_to_go_on(command: str, directory: Path) -> Iterator[None]:
    """Inside, a run or a comparison works: what stops it says how to go on, if there is what to go on with.

    Args:
        command: ``run`` or ``compare``.
        directory: of the run or the comparison.
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
    """Names the runs of a comparison whose model diverged, so that nobody takes their figures for results."""
    for arm in arms:
        if (last := arm.summary.get("diverged_round")) is not None:
            text = f"{arm.selector}, seed {arm.seed}: diverged, its test loss after round {last} is no number"
            note(text)


@contextmanager
def fresh_directory(name: str) -> Iterator[Path]:
    """A new directory in runs/, named after the time; it goes away again when nothing was written into it.

    It is made here, not only named: of two runs that begin in the same second, one has to take another.

    Raises:
        InputError: it cannot be made.
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
