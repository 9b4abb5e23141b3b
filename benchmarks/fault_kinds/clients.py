"""Tries clients that raise, hang, kill their worker or send NaN; settings that change before --resume."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fault_kinds.harness import CLIENTS, COHORT, Bench, Kind, Outcome, judge

EXECUTION: dict[str, Any] = {"executor": "processes", "workers": 2, "retries": 3}


def _raises(held: Any) -> Any:
    raise ValueError("torn file")


def _hangs(held: Any) -> Any:
    time.sleep(3600)


def _kills_its_worker(held: Any) -> Any:
    os.kill(os.getpid(), signal.SIGKILL)


def _sends_nan(held: Any) -> Any:
    return type(held)((held.pool[0] * float("nan"), held.pool[1]), held.rows)


def bad_client(fault: Callable[[Any], Any], words: str) -> Callable[[Bench, random.Random], Outcome]:
    """Makes a client's training fail: one message with its number; once fixed, --resume gives the same."""

    def one(bench: Bench, draw: random.Random) -> Outcome:
        peace, out, client = bench.whole(), bench.place(), _drawn(draw)
        execution = {**EXECUTION, **({"client_seconds": 1.5} if fault is _hangs else {})}
        begin = ("run", "--config", bench.settings(execution=execution), "--quiet", "--out", out)
        ended = bench.call(*begin, prepare=_spoilt(client, fault))
        if ended.code != 1 or f"client {client}" not in (ended.message or "") or words not in ended.err:
            return Outcome("wrong", note=ended.shown)
        after = judge(bench.resume(out), out, peace)
        return Outcome("message", note=ended.message or "") if after.word == "same" else after

    return one


def dropped_client(bench: Bench, draw: random.Random) -> Outcome:
    """Does the same with client_errors=drop: it is left out and reported in each round that draws it."""
    client, out = _drawn(draw), bench.place()
    settings = bench.settings(execution={**EXECUTION, "client_errors": "drop"})
    return _reported(bench, settings, out, client, _raises, "failed")


def nan_client(bench: Bench, draw: random.Random) -> Outcome:
    """Makes a client's change NaN: it is refused and reported in each round that draws it."""
    client, out = _drawn(draw), bench.place()
    return _reported(bench, bench.settings(), out, client, _sends_nan, "refused")


def changed_config(bench: Bench, draw: random.Random) -> Outcome:
    """Changes settings between two parts of a run: they are refused, and no file is touched."""
    out = Path(shutil.copytree(bench.broken(), bench.place()))
    file = out / "config.yaml"
    file.write_text(file.read_text().replace("lr: 0.1", f"lr: 0.{draw.randrange(2, 9)}"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    ended = bench.call("run", "--resume", out)
    untouched = before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    right = untouched and ended.code == 2 and ended.message
    return Outcome("message" if right else "wrong", note=ended.shown)


def _reported(
    bench: Bench, settings: str, out: Path, client: int, fault: Callable[[Any], Any], key: str
) -> Outcome:
    begin = ("run", "--config", settings, "--quiet", "--out", out)
    ended = bench.call(*begin, prepare=_spoilt(client, fault))
    if ended.code:
        return Outcome("wrong", note=ended.shown)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    drawn = [json.loads(line)["cohort"] for line in (out / "selection.jsonl").read_text().splitlines()]
    named = [client in set(map(int, line[key])) for line in lines]
    right = named == [client in cohort for cohort in drawn]
    return Outcome("message" if right else "wrong", sum(named), f"client {client}: {named}")


def _drawn(draw: random.Random) -> int:
    """Returns a client that one of the first rounds draws."""
    from fedtlu_fast.participation.cohort import sample_cohort

    return draw.choice(sample_cohort(0, 3, CLIENTS, COHORT))


def _spoilt(client: int, fault: Callable[[Any], Any]) -> Callable[[], None]:
    def prepare() -> None:
        import fedtlu_fast.data.sources.arrays as arrays

        train = arrays.MappedPopulation.train

        def spoilt(self: Any, index: int) -> Any:
            held = train(self, index)
            return fault(held) if index == client else held

        arrays.MappedPopulation.train = spoilt  # type: ignore[method-assign]

    return prepare


KINDS = [
    Kind("client raises: stop, mended, --resume", 6, bad_client(_raises, "torn file")),
    Kind("client hangs: stop, mended, --resume", 4, bad_client(_hangs, "client_seconds")),
    Kind("client kills its worker: stop, mended, --resume", 4, bad_client(_kills_its_worker, "killed")),
    Kind("client raises, dropped", 4, dropped_client),
    Kind("client sends NaN, refused", 4, nan_client),
    Kind("settings changed, then --resume", 4, changed_config),
]
