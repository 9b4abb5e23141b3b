"""A tracker of the user's own, which writes down what it is told."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedtlu_fast.errors import InputError
from fedtlu_fast.integrations.trackers import OpenTracker, TrackedRun, Tracker
from fedtlu_fast.parts import part


@part
class ToFile(Tracker):
    """Writes a line of JSON for every call.

    Attributes:
        folder: of the files, one for each run.
    """

    folder: str

    def start(self, run: TrackedRun) -> OpenTracker:
        Path(self.folder).mkdir(exist_ok=True)
        return Lines(Path(self.folder) / f"{run.name}.jsonl", run)


class Lines(OpenTracker):
    def __init__(self, path: Path, run: TrackedRun) -> None:
        self.path, self.known = path, run.memory.get("path", str(path))
        self.write(start=run.logged, memory=dict(run.memory), group=run.group, settings=dict(run.settings))

    @property
    def memory(self) -> Mapping[str, str]:
        return {"path": self.known}

    def log(self, row: Mapping[str, float], step: int) -> None:
        self.write(step=step, row=dict(row))

    def finish(self, summary: Mapping[str, float]) -> None:
        self.write(summary=dict(summary))

    def close(self) -> None:
        self.write(closed=True)

    def write(self, **told: Any) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(told) + "\n")


@part
class Refusing(ToFile):
    """Refuses every folder.

    Attributes:
        folder: of the files.
    """

    def check(self) -> None:
        raise InputError("folder", self.folder, "another folder")


@part
class Failing(ToFile):
    """Does one thing wrong.

    Attributes:
        folder: of the files.
        at: the method that fails, or what `start` or `memory` gives wrongly.
    """

    at: str

    def check(self) -> None:
        self.fail("check")

    def start(self, run: TrackedRun) -> OpenTracker:
        self.fail("start")
        return None if self.at == "none" else FailingLines(self, run)  # type: ignore[return-value]

    def fail(self, at: str) -> None:
        if self.at == at:
            raise ValueError(f"wrong in {at}")


class FailingLines(Lines):
    def __init__(self, tracker: Failing, run: TrackedRun) -> None:
        super().__init__(Path(tracker.folder) / "failing.jsonl", run)
        self.tracker = tracker

    @property
    def memory(self) -> Mapping[str, str]:
        self.tracker.fail("memory")
        return {"number": 5} if self.tracker.at == "number" else {}  # type: ignore[dict-item]

    def log(self, row: Mapping[str, float], step: int) -> None:
        self.tracker.fail("log")

    def finish(self, summary: Mapping[str, float]) -> None:
        self.tracker.fail("finish")

    def close(self) -> None:
        raise ValueError("wrong in close")
