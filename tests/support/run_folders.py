"""Directories as runs and comparisons leave them, written in milliseconds without running anything."""

import json
from pathlib import Path
from typing import Any

import yaml

from fedtlu_fast.runs.directory import RunDirectory
from fedtlu_fast.runs.sealed import seal_yaml

SETTINGS = {
    "task": "language_modelling",
    "run_name": None,
    "seed": 0,
    "rounds": 4,
    "warmup_rounds": 1,
    "clients": 8,
    "cohort": 3,
    "client_selection": {"selector": "none"},
    "selection": {"selector": "fedtlu", "keep": 1},
    "training": {"lr": 0.5},
}
BLOCKS = ["model.embed", "model.h.0", "model.h.1", "model.head"]
"""The embedding and the head are always updated."""
PERPLEXITY = {"better": "lower", "title": "perplexity", "percent": False}


def settings_text(**over: Any) -> str:
    """Returns the settings of a small run as YAML."""
    return str(yaml.safe_dump({**SETTINGS, **over}, sort_keys=False))


def row(index: int, **over: Any) -> dict[str, Any]:
    """Returns the row of a round in metrics.jsonl; the first one is warm-up."""
    chosen = BLOCKS if index == 1 else [BLOCKS[0], BLOCKS[1 + index % 2], BLOCKS[3]]
    found = {
        "round": index,
        "train_loss": 5.0 / index,
        "test_loss": 4.0 / index,
        "test_perplexity": 100.0 / index,
        "test_accuracy": None,
        "selected": chosen,
        "updated_share": 0.5,
        "warmup": index == 1,
        "nonfinite_blocks": [],
        "refused": [],
        "failed": {},
        "dropped": {},
        "trained": 3,
        "kept_clients": None,
        "bytes_up": 12,
        "bytes_published": 6,
        "seconds": 0.25,
    }
    return {**found, **over}


def summary(rounds: int, **over: Any) -> dict[str, Any]:
    """Returns the summary of a run of so many rounds, as far as tables need it."""
    found = {
        "task": "language_modelling",
        "headline": "perplexity",
        "figures": {"perplexity": PERPLEXITY},
        "selector": "fedtlu",
        "seed": 0,
        "rounds": rounds,
        "warmup_rounds": 1,
        "targeted_rounds": rounds - 1,
        "test_perplexity": 100.0 / rounds,
        "local_perplexity": 90.0 / rounds,
        "trained_local_perplexity": None,
        "updated_share": 0.5,
        "bytes_up": 12.0,
        "bytes_published": 6.0,
        "seconds": 1.0,
    }
    return {**found, **over}


def append(path: Path, *rows: dict[str, Any]) -> None:
    """Adds rows to metrics.jsonl and selection.jsonl."""
    for one in rows:
        with (path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(one) + "\n")
        with (path / "selection.jsonl").open("a") as file:
            file.write(json.dumps({"round": one["round"], "block_scores": dict.fromkeys(BLOCKS, 1.0)}) + "\n")


def begun_run(path: Path, done: int = 0, **over: Any) -> Path:
    """Makes the directory of a run that has stopped after some rounds."""
    directory = RunDirectory.create(path, settings_text(**over))
    append(path, *map(row, range(1, done + 1)))
    directory.close()
    return path


def finished_run(path: Path, rounds: int = 4, **over: Any) -> Path:
    """Makes the directory of a finished run, with the digests of its files."""
    directory = RunDirectory.create(path, settings_text(rounds=rounds, **over))
    for index in range(1, rounds + 1):
        directory.append("metrics.jsonl", row(index))
        directory.append("selection.jsonl", {"round": index, "block_scores": dict.fromkeys(BLOCKS, 1.0)})
        directory.append("timings.jsonl", {"round": index, "train": 0.1})
    directory.finish(summary(rounds), rounds)
    directory.close()
    return path


def begun_comparison(path: Path, selectors: list[str], **over: Any) -> Path:
    """Makes the directory of a comparison whose arms have not begun."""
    arms = yaml.safe_dump({"selectors": selectors, "seeds": [0]})
    RunDirectory.create(path, settings_text(**over), arms=arms).close()
    return path


def begun_experiment(path: Path) -> Path:
    """Makes the directory of an experiment whose comparisons have not begun."""
    plan = {"selectors": ["fedtlu", "full"], "seeds": [0, 1], "conditions": {"fedavg-clean": SETTINGS}}
    RunDirectory(path).write("experiment.yaml", seal_yaml(yaml.safe_dump(plan)))
    return path


def killed(path: Path) -> Path:
    """Marks a run as one whose process was killed: the lock's file still says who held it."""
    (path / ".lock").write_text(json.dumps({"pid": 1, "host": "here", "began": 1.0}) + "\n")
    return path
