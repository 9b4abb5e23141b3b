"""Past runs side by side: which directories hold them, which belong together, and how settings differ."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fedtlu_fast.report.run_settings import RunSettings
from fedtlu_fast.runs.arm_paths import arm_path
from fedtlu_fast.runs.directory import COMPARISON, PLAN
from fedtlu_fast.runs.results import ArmResult, read_arm
from fedtlu_fast.runs.sealed import read_sealed_yaml
from fedtlu_fast.yaml_text import parse_yaml

APART = ("seed", "run_name")
"""Settings in which the runs of one entry may differ."""
MANNER = ("execution.", "checkpoint.", "backend", "threads")
"""Settings that say how a run is computed, and not what: they decide no result, apart from its last bits."""


@dataclass(frozen=True)
class Entry:
    """Runs that differ in nothing but their seed.

    Attributes:
        name: what the page calls them; each of `runs` has it as its selector.
        runs: one for each seed.
        places: their directories.
        settings: their settings other than those of `APART`, by dotted names.
    """

    name: str
    runs: tuple[ArmResult, ...]
    places: tuple[Path, ...]
    settings: Mapping[str, Any]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs."""
        return [run.seed for run in self.runs]


@dataclass(frozen=True)
class _Found:
    """One finished run: its name without the seed, the selector's name within a comparison, and its files."""

    name: str
    run: ArmResult
    place: Path
    settings: Mapping[str, Any]


def read_entries(places: Sequence[Path], field: str) -> list[Entry]:
    """Reads finished runs, and all runs of finished comparisons and experiments.

    Runs that differ only in their seed become one entry, whose curves have a spread.

    Args:
        places: directories of runs, comparisons and experiments.
        field: what names them, for messages.

    Raises:
        InputError: one of them is not finished, or not as it was written.
    """
    found = [
        one for place, label in zip(places, labels(places), strict=True) for one in _read(place, label, field)
    ]
    groups: dict[str, list[_Found]] = {}
    for one in found:
        key = json.dumps([one.name if "/" in one.name else "", _deciding(one.settings)], sort_keys=True)
        groups.setdefault(key, []).append(one)
    entries = []
    for group in groups.values():
        seeds = [one.run.seed for one in group]
        # The same run twice: a spread over such runs would say nothing.
        apart = [[one] for one in group] if len(set(seeds)) < len(seeds) else [group]
        entries += [_entry(part) for part in apart]
    return _named_apart(entries)


def labels(places: Sequence[Path]) -> list[str]:
    """Returns a short name for each directory: its own, with as many folders above it as tell them apart."""
    parts = [place.resolve().parts for place in places]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(set(parts)):
            return names
    return [str(place) for place in places]


def differing(entries: Sequence[Entry]) -> list[str]:
    """Returns the settings in which the entries differ, those of `MANNER` last."""
    names = dict.fromkeys(name for entry in entries for name in entry.settings)
    apart = [name for name in names if len({_written(entry.settings.get(name)) for entry in entries}) > 1]
    return sorted(apart, key=lambda name: name.startswith(MANNER))


def setting_text(entry: Entry, name: str) -> str:
    """Returns the value of a setting as tables show it; a dash if the entry has no such setting."""
    if name not in entry.settings:
        return "-"
    value = entry.settings[name]
    return value if isinstance(value, str) else _written(value)


def _written(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _read(place: Path, label: str, field: str) -> Iterator[_Found]:
    if os.path.lexists(place / PLAN):
        plan = parse_yaml(read_sealed_yaml(place / PLAN, "the plan of this experiment"))
        for condition in plan["conditions"]:
            yield from _arms(place / condition, f"{label}/{condition}", field)
    elif os.path.lexists(place / COMPARISON):
        yield from _arms(place, label, field)
    else:
        yield _run(place, re.sub(r"-seed\d+$", "", label), None, field)


def _arms(place: Path, label: str, field: str) -> Iterator[_Found]:
    arranged = parse_yaml(read_sealed_yaml(place / COMPARISON, "selectors and seeds of this comparison"))
    for selector in arranged["selectors"]:
        for seed in arranged["seeds"]:
            yield _run(arm_path(place, selector, seed), f"{label}/{selector}", selector, field)


def _run(place: Path, name: str, selector: str | None, field: str) -> _Found:
    run = read_arm(place, selector, field)
    settings = {key: value for key, value in _flat(RunSettings.read(place).tree) if key not in APART}
    return _Found(name, run, place, settings)


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _deciding(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if not name.startswith(MANNER)}


def _entry(group: Sequence[_Found]) -> Entry:
    first = group[0]
    name = first.name if len(group) > 1 or first.run.seed == 0 else f"{first.name}, seed {first.run.seed}"
    return Entry(name, tuple(one.run for one in group), tuple(one.place for one in group), first.settings)


def _named_apart(entries: Sequence[Entry]) -> list[Entry]:
    """Returns the entries with names that differ, and their runs under these names."""
    taken: dict[str, int] = {}
    found = []
    for entry in entries:
        taken[entry.name] = taken.get(entry.name, 0) + 1
        name = entry.name if taken[entry.name] == 1 else f"{entry.name} ({taken[entry.name]})"
        runs = tuple(replace(run, selector=name) for run in entry.runs)
        found.append(replace(entry, name=name, runs=runs))
    return found
