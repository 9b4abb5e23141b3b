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
from fedtlu_fast.profiling.federations.workloads import choose, cnn, gpt, lora, mlp, text
from fedtlu_fast.profiling.federations.workloads.protocol import Workload

choose.import_model(args.workload)
report.imported()

OWN = "fedtlu_fast.profiling.federations.workloads"
"""Where the networks are that are given as a user's own."""


def _write(work: Workload, folder: Path) -> None:
    """Writes the clients' data to files that ``data.source=arrays:DIR`` opens, and weights to begin with."""
    held = [work.client(client) for client in range(work.clients)]
    inputs = torch.cat([own for own, _ in held])
    targets = torch.cat([own for _, own in held])
    if isinstance(work, text.TextWorkload):
        arrays = {"samples": torch.cat([inputs, targets[:, -1:]], dim=1)}
    else:
        arrays = {"features": inputs, "labels": targets}
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array.numpy())
        np.save(folder / f"test_{name}.npy", array[: work.settings.batch].numpy())
    np.save(folder / "train_rows.npy", np.arange(len(inputs)))
    np.save(folder / "train_starts.npy", np.arange(work.clients + 1) * work.settings.samples)
    if isinstance(work, lora.LoraWorkload):
        work.base().save_pretrained(folder / "base")


def _model(work: Workload, folder: Path) -> dict[str, Any]:
    if isinstance(work, gpt.GptWorkload):
        return {"layers": work.layers, "width": work.width, "heads": work.heads}
    if isinstance(work, lora.LoraWorkload):
        adapters = {"rank": work.rank, "alpha": work.alpha, "targets": work.targets}
        return {"pretrained": str(folder / "base"), "lora": adapters}
    if isinstance(work, mlp.MlpWorkload):
        return {"hidden": [mlp.FEATURES]}
    return {"architecture": f"{OWN}.{work.name}:Network"}


def _data(work: Workload) -> dict[str, Any]:
    if isinstance(work, text.TextWorkload):
        return {"vocabulary": work.vocabulary, "window": work.context}
    return {"classes": cnn.CLASSES if isinstance(work, cnn.CnnWorkload) else mlp.CLASSES}


def _settings(work: Workload, folder: Path) -> dict[str, Any]:
    own = work.settings
    return {
        "task": "language_modelling" if isinstance(work, text.TextWorkload) else "classification",
        "model": _model(work, folder),
        "clients": work.clients,
        "cohort": work.cohort,
        # One more round than are run, because the last round of a run has tests.
        "rounds": args.rounds + 1,
        "seed": args.seed,
        "threads": args.threads if args.mode in ("serial", "vectorized") else 1,
        "data": {"source": f"arrays:{folder}", **_data(work)},
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
    work = choose.workload(args.workload, args.clients, args.cohort, args.seed)
    with tempfile.TemporaryDirectory() as folder:
        _write(work, Path(folder))
        settings = parse_config(_settings(work, Path(folder)))
        with closing(open_run(settings, callbacks=[lambda row: report.end_round()])) as run:
            model = work.model()
            # The weights are the same, in the same order, under other names.
            trained = [own for own in model.parameters() if own.requires_grad]
            run.state = replace(run.state, params=parameters_to_vector(trained).detach())
            report.begin()
            run.advance(args.rounds)
            vector_to_parameters(run.state.params, trained)
    report.finish(work, model, __version__)


main()
