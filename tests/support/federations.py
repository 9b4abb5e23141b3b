"""Federations that run within a second, and functions that compare two runs."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedtlu_fast.config import RunConfig
from fedtlu_fast.config.settings import parse_config

WORDS = [f"{a}{b}" for a in ("ba", "do", "ki", "lu", "me") for b in ("ra", "to", "si", "nu", "pe", "go")]


def write_text(path: Path, words: int = 2400, seed: int = 7) -> Path:
    """Writes a text file of paragraphs, each of which uses a few words only."""
    draws, lines = random.Random(seed), []
    for _ in range(words // 150):
        about = draws.sample(WORDS, 8)
        lines.append(" ".join(draws.choices(about, k=150)))
    path.write_text("\n\n".join(lines) + "\n", encoding="utf-8")
    return path


def tree(text: Path, **over: Any) -> dict[str, Any]:
    """Settings of a tiny federation as a nested mapping; `over` replaces or extends its keys.

    At least one round is left after the warm-up, unless `over` says more on it.
    """
    settings: dict[str, Any] = {
        "rounds": 5,
        "warmup_rounds": 2,
        "clients": 4,
        "cohort": 2,
        "data": {"source": f"text:{text}", "vocabulary": 40, "window": 8},
        "partition": {"name": "dirichlet", "alpha": 0.5},
        "model": {"layers": 3, "width": 8, "heads": 2},
        "training": {"lr": 0.5, "batch_size": 4, "local_steps": 1, "clip_norm": 1.0},
        "selection": {"selector": "fedtlu", "keep": 1},
        "evaluation": {"trained_clients": 1, "local_every": 3},
        "checkpoint": {"every": 2, "retain": 2},
        "execution": {"executor": "serial", "clients_per_batch": 1, "engine": "torch"},
    }
    settings["warmup_rounds"] = min(2, over.get("rounds", 5) - 1)
    return _laid_over(settings, over)


def _laid_over(settings: dict[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in over.items():
        settings[key] = {**settings[key], **value} if isinstance(settings.get(key), dict) else value
    return settings


def tiny(text: Path, **over: Any) -> RunConfig:
    """Returns the same settings as a checked `RunConfig`."""
    return parse_config(tree(text, **over))


def features(
    selection: Mapping[str, Any], execution: Mapping[str, Any] | None = None, /, **over: Any
) -> RunConfig:
    """Settings of seven of twenty clients that classify drawn features with four like blocks.

    Args:
        selection: the server's; `fedtlu`, or another selector that it names, keeps one block.
        execution: replaces or extends these settings: client after client, here, by PyTorch.
        over: likewise, of any section.
    """
    kept = {} if selection.get("selector") == "full" else {"keep": 1}
    settings: dict[str, Any] = {
        "task": "classification",
        "clients": 20,
        "cohort": 7,
        "rounds": 2,
        "data": {"source": "synthetic", "classes": 4, "synthetic": {"features": 6, "fewest": 4, "most": 15}},
        "model": {"hidden": [6, 6, 6, 6]},
        "training": {"lr": 0.1, "batch_size": 4},
        "selection": {"selector": "fedtlu", **kept, **selection},
        "evaluation": {"trained_clients": 0, "local_clients": 2},
        "execution": {"executor": "serial", "clients_per_batch": 1, "engine": "torch", **(execution or {})},
    }
    return parse_config(_laid_over(settings, over))


def rows(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a log; every line has to be JSON."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def timeless(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns rows without the values that differ between any two runs."""
    return [{key: value for key, value in row.items() if key != "seconds"} for row in found]


def left(out: Path) -> dict[str, Any]:
    """Returns the results of a finished run that must not depend on executors, kills or resumes."""
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return {
        "summary": timeless([summary]),
        "metrics": timeless(rows(out / "metrics.jsonl")),
        "selection": rows(out / "selection.jsonl"),
    }


def snapshot(folder: Path) -> dict[str, bytes]:
    """Returns the bytes of every file."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
