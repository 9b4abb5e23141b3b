"""Runs fedtlu-fast as a user does, with `Run` and settings, but without tests and files."""
# ruff: noqa: E402  (the clock starts before the imports that it measures)

from __future__ import annotations

import time

STARTED = time.perf_counter()

from fedtlu_fast.profiling.federations import harness

args = harness.arguments(
    ["auto", "serial", "vectorized", "processes", "ray"], parallel=("auto", "processes", "ray")
)
report = harness.Report("fedtlu", args, STARTED)

import tempfile
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from fedtlu_fast import __version__
from fedtlu_fast.build.run import open_run
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.profiling.federations.workload import (
    CLASSES,
    CONTEXT,
    FEATURES,
    VOCABULARY,
    Workload,
    import_model,
    workload,
)

import_model(args.workload)
report.imported()


def _write(work: Workload, folder: Path) -> None:
    """Writes the clients' data to files that ``data.source=arrays:DIR`` opens."""
    held = [work.client(client) for client in range(work.clients)]
    inputs = torch.cat([own for own, _ in held])
    targets = torch.cat([own for _, own in held])
    if work.name == "mlp":
        arrays = {"features": inputs, "labels": targets}
    else:
        arrays = {"samples": torch.cat([inputs, targets[:, -1:]], dim=1)}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array.numpy())
        np.save(folder / f"test_{name}.npy", array[: work.settings.batch].numpy())
    np.save(folder / "train_rows.npy", np.arange(len(inputs)))
    np.save(folder / "train_starts.npy", np.arange(work.clients + 1) * work.settings.samples)


def _settings(work: Workload, folder: Path) -> dict[str, Any]:
    mlp = {"task": "classification", "model": {"hidden": [FEATURES]}}
    gpt = {"task": "language_modelling", "model": {"layers": 4, "width": 128, "heads": 4}}
    own = work.settings
    return {
        **(mlp if work.name == "mlp" else gpt),
        "clients": work.clients,
        "cohort": work.cohort,
        # One more round than are run, because the last round of a run has tests.
        "rounds": args.rounds + 1,
        "seed": args.seed,
        "threads": args.threads if args.mode in ("serial", "vectorized") else 1,
        "data": {
            "source": f"arrays:{folder}",
            "classes": CLASSES,
            "vocabulary": VOCABULARY,
            "window": CONTEXT,
        },
        "training": {
            "lr": own.lr,
            "batch_size": own.batch,
            "local_steps": own.steps,
            "clip_norm": None,
        },
        "selection": {"selector": "full"},
        "evaluation": {"every": 10**6, "local_every": 10**6, "trained_clients": 0},
        "execution": {"executor": args.mode, "workers": args.workers},
    }


def main() -> None:
    """Runs the rounds."""
    work = workload(args.workload, args.clients, args.cohort, args.seed)
    with tempfile.TemporaryDirectory() as folder:
        _write(work, Path(folder))
        settings = parse_config(_settings(work, Path(folder)))
        with closing(open_run(settings, callbacks=[lambda row: report.end_round()])) as run:
            model = work.model()
            # The weights are the same, in the same order, under other names.
            run.state = replace(run.state, params=parameters_to_vector(model.parameters()).detach())
            report.begin()
            run.advance(args.rounds)
            vector_to_parameters(run.state.params, model.parameters())
    report.finish(work, model, __version__)


main()
