"""Implements ``fedtlu export``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from fedtlu_fast.cli import options
from fedtlu_fast.cli.console import note
from fedtlu_fast.errors import InputError
from fedtlu_fast.places import at_home
from fedtlu_fast.runs.find import find_run


def export_command(
    run_dir: options.OneRun,
    to: Annotated[
        Path,
        typer.Option(
            help="New or empty directory for the model and its card.", metavar="DIR", parser=at_home
        ),
    ],
    best: Annotated[
        bool, typer.Option("--best", help="The best model of the run (checkpoint.best), not the final one.")
    ] = False,
    merge: Annotated[
        bool, typer.Option("--merge", help="Add LoRA adapters to the weights, and write a whole model.")
    ] = False,
    push_to_hub: Annotated[
        str | None,
        typer.Option(
            help="Also send the directory to this repository on the Hugging Face Hub.", metavar="USER/NAME"
        ),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Write the model of a finished run so that transformers or peft read it, with a model card.

    The card (README.md) tells setting, data, result and costs; its license is for you to fill in. Models
    that are no classes of transformers are written as their tensors (model.safetensors).
    """
    from fedtlu_fast.build.finished import load_result

    if os.path.lexists(to) and not (to.is_dir() and not any(to.iterdir())):
        raise InputError("--to", str(to), "a new or empty directory", "Choose another.")
    result = load_result(find_run(run_dir, "RUN_DIR", ("run",)))
    result.save_pretrained(to, best=best, merge=merge, push_to_hub=push_to_hub)
    if not quiet:
        note(f"Files in {to} (README.md says how to load the model)")
