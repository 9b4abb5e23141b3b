"""Defines options that several commands share, and turns them into settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtlu_fast.cli import compare_default, completion
from fedtlu_fast.cli.console import be_quiet
from fedtlu_fast.places import absolute, at_home

if TYPE_CHECKING:
    from fedtlu_fast.config import RunConfig
    from fedtlu_fast.integrations.trackers import Track


def _preset(default: str) -> Any:
    return typer.Option(
        metavar="NAME",
        autocompletion=completion.presets,
        help=f"Preset, a set of settings that ships with the package (default: {default}, unless --config is "
        "given); `fedtlu settings` lists them.",
    )


Preset = Annotated[str | None, _preset("quickstart")]
PresetOfComparisons = Annotated[str | None, _preset(compare_default.PRESET)]
Config = Annotated[
    Path | None,
    typer.Option(
        help="YAML file of settings, such as the config.yaml of a run.",
        metavar="FILE",
        parser=at_home,
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        autocompletion=completion.settings,
        help="One setting, such as rounds=20 or training.lr=0.1. May be repeated.",
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help="Pre-trained model: a name (such as gpt2), a directory or a .gguf file (default: a small model "
        "with random weights).",
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=completion.parts("task", "digits", "topics", "pycode"),
        help="Task: language_modelling (default), tagging, classification, image_classification or "
        "text_classification; digits and topics stand for the last two with embedded data and a preset.",
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        autocompletion=completion.parts("source"),
        help="Data source: pydoc, text:PATH, ptb:DIR, pycode, udpos:PATH, digits, cifar10:PATH, images:DIR, "
        "topics, texts:PATH, hf:NAME[:CONFIG][@REVISION], ...; `fedtlu settings` lists all sources.",
    ),
]
Partition = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=completion.parts("partitioner"),
        help="Partition, which deals the data to the clients: iid, dirichlet[:ALPHA], shard[:SHARDS], "
        "natural, ...; `fedtlu settings` lists all partitions.",
    ),
]
Rounds = Annotated[int | None, typer.Option(metavar="N", help="Number of rounds, warm-up included.")]
Clients = Annotated[int | None, typer.Option(metavar="N", help="Number of clients in the federation.")]
Backend = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=completion.words("auto", "reference", "native", "triton"),
        help="Backend of the kernels: auto, reference, native or triton.",
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        metavar="DEVICE",
        autocompletion=completion.words("cpu", "cuda"),
        help="Device that trains: cpu, cuda or cuda:N.",
    ),
]
Executor = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        autocompletion=completion.parts("executor"),
        help="Executor, which trains the clients: auto, serial, vectorized, processes or ray[:ADDRESS].",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Number of workers of the executors processes and ray (default: the number of cores).",
    ),
]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Seed of all random draws.")]
Out = Annotated[
    Path | None,
    typer.Option(
        help="New directory for the files of the run (default: a new directory in runs/).",
        metavar="DIR",
        parser=at_home,
    ),
]
Name = Annotated[
    str | None,
    typer.Option(
        "--name",
        metavar="NAME",
        help="Name of the run: it goes into the directory's name, and other commands find the run by it.",
    ),
]
AnyRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN",
        show_default=False,
        help="Its directory; or its name in runs/ or experiments/, or the beginning of it; or latest "
        "(the default).",
        autocompletion=completion.runs,
    ),
]
OneRun = Annotated[
    str,
    typer.Argument(
        metavar="RUN_DIR",
        help="Run: its directory, its name in runs/ or experiments/ or the beginning of it, or latest.",
        autocompletion=completion.runs,
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option("--csv", help="Write the rows to this CSV file.", metavar="FILE", parser=at_home),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="NAMES",
        help="More columns of tables, pictures and the report, separated by commas: numbers in metrics.jsonl "
        "or summary.json by their names, columns of installed packages, or package.module:name of your own.",
    ),
]
Trackers = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="NAME",
        help="Tracker that gets metrics, block scores, choices and settings: tensorboard[:FOLDER], "
        "wandb[:PROJECT], mlflow[:EXPERIMENT], trackio[:PROJECT], print, or package.module:Name of your own. "
        "May be repeated.",
    ),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=be_quiet, help="Show only results, no progress and no notes."),
]


def settings_from(
    preset: str | None,
    config: Path | None,
    overrides: list[str] | None,
    default: str | None = None,
    /,
    **given: Any,
) -> RunConfig:
    """Makes settings from a preset, a file, --set and the other options; later ones override earlier ones.

    Args:
        preset: the preset's name, or None.
        config: the YAML file, or None.
        overrides: the overrides of --set.
        default: the preset if there is neither `preset` nor `config`; None for `DEFAULT_PRESET`.
        given: values of dotted settings, with ``__`` for the dot (``data__source``); None means not given. If
            a task has the name of a preset, that preset is the default.
    """
    from fedtlu_fast.config.settings import DEFAULT_PRESET, load_config, presets

    if preset is None and config is None:
        preset = given["task"] if given.get("task") in presets() else default or DEFAULT_PRESET
    return from_everywhere(load_config(preset, config, [*(overrides or []), *overrides_of(given)]))


def from_everywhere(config: RunConfig) -> RunConfig:
    """Makes paths in settings absolute, so that the run can be resumed from another directory."""
    data, participation = config.data, config.participation
    found: dict[str, Any] = {"data": data.model_copy(update={"source": data.source.located()})}
    if participation.trace is not None:
        trace = {"trace": absolute(participation.trace)}
        found["participation"] = participation.model_copy(update=trace)
    if config.model.pretrained is not None:
        pretrained = {"pretrained": absolute(config.model.pretrained)}
        found["model"] = config.model.model_copy(update=pretrained)
    return config.model_copy(update=found)


def overrides_of(given: Mapping[str, Any]) -> list[str]:
    """Returns options that stand for settings as ``key=value`` overrides."""
    # Quoted, because --set takes YAML, which may read a path as a comment or a mapping.
    settings = {key.replace("__", "."): value for key, value in given.items() if value is not None}
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def listed(text: str | None) -> list[str]:
    """The parts of an option whose values are separated by commas."""
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def tracked(names: Sequence[str] | None) -> list[Track]:
    """Returns the callbacks that the option --track asks for.

    Raises:
        InputError: There is no such tracker, or its package is not installed.
    """
    if not names:
        return []
    from fedtlu_fast.integrations.trackers import Track

    return [Track(name) for name in names]
