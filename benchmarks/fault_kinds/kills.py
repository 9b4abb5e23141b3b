"""Ends runs, comparisons and workers by SIGKILL, SIGSTOP, SIGINT and SIGTERM."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress

from fault_kinds.harness import ROUNDS, Bench, Kind, Outcome, children, judge

WORKERS = {"executor": "processes", "workers": 2, "retries": 100_000}


def killed_run(bench: Bench, draw: random.Random) -> Outcome:
    """Kills a run at random moments, several times, later each time; then the run is resumed to its end."""
    variant = draw.choice(["plain", "losses", "clients"])
    peace, out = bench.whole(variant), bench.place()
    begin = ("run", "--config", bench.settings(variant), "--quiet")
    killed, reach = 0, bench.seconds(f"whole-{variant}") / 2
    while killed < 4:
        command = (
            bench.start("run", "--resume", out, "--quiet")
            if (out / "config.yaml").exists()
            else bench.start(*begin, "--out", out)
        )
        if command.wait(draw.uniform(0, reach)):
            break
        command.signal(signal.SIGKILL)
        command.wait(10)
        killed, reach = killed + 1, reach * 1.2
    ended = bench.resume(out) if (out / "config.yaml").exists() else bench.call(*begin, "--out", out)
    return _counted(judge(ended, out, peace), killed)


def killed_comparison(bench: Bench, draw: random.Random) -> Outcome:
    """Kills a comparison, in half of the cases while its first files appear."""
    peace, out, begin = bench.compared(), bench.place(), bench.comparison()
    command = bench.start(*begin, "--out", out)
    if draw.random() < 0.5:
        # From the moment when its directory appears.
        while not out.exists() and not command.poll():
            time.sleep(0.0005)
        command.wait(draw.uniform(0, 0.03))
    else:
        command.wait(draw.uniform(0, bench.seconds("compared")))
    killed = not command.poll()
    command.signal(signal.SIGKILL)
    command.wait(10)
    ended = bench.resume(out) if (out / "config.yaml").exists() else bench.call(*begin, "--out", out)
    return _counted(judge(ended, out, peace), int(killed))


def killed_workers(bench: Bench, draw: random.Random) -> Outcome:
    """Kills a hundred workers, in as many runs as needed."""
    long = {"rounds": 5 * ROUNDS, "checkpoint": {"every": 5}}
    peace, killed = bench.whole(**long), 0
    settings = bench.settings(execution=WORKERS, **long)
    while killed < 100:
        out = bench.place()
        command = bench.start("run", "--config", settings, "--quiet", "--out", out)
        until = time.monotonic() + 20
        while not command.wait(draw.uniform(0.02, 0.12)) and killed < 100 and time.monotonic() < until:
            if workers := children(command.pid):
                with suppress(ProcessLookupError):
                    os.kill(draw.choice(workers), signal.SIGKILL)
                    killed += 1
        found = judge(command.end(), out, peace)
        if found.word != "same":
            return Outcome("wrong", killed, found.note)
    return Outcome("same", killed)


def stopped_workers(bench: Bench, draw: random.Random) -> Outcome:
    """Stops a worker: it is given up after client_seconds; in some cases it continues before that."""
    peace, out = bench.whole(), bench.place()
    own = {**WORKERS, "client_seconds": 1.5}
    command = bench.start("run", "--config", bench.settings(execution=own), "--quiet", "--out", out)
    stopped, goes_on = 0, draw.random() < 0.3
    while not command.wait(draw.uniform(0.0, 0.1)) and not stopped:
        if workers := children(command.pid):
            with suppress(ProcessLookupError):
                os.kill(worker := draw.choice(workers), signal.SIGSTOP)
                stopped += 1
                command.wait(draw.uniform(0, 0.3))
                if goes_on:
                    os.kill(worker, signal.SIGCONT)
    ended = command.end()
    found = judge(ended, out, peace)
    if found.word == "message":
        found = _after(bench, ended.message or "", judge(bench.resume(out), out, peace))
    return _counted(found, stopped)


def signalled_run(bench: Bench, draw: random.Random) -> Outcome:
    """Sends SIGINT or SIGTERM, sometimes twice: the command says how to resume, or ends immediately."""
    peace, out, number = bench.whole(), bench.place(), draw.choice([signal.SIGINT, signal.SIGTERM])
    begin = ("run", "--config", bench.settings(), "--quiet")
    command = bench.start(*begin, "--out", out)
    command.wait(draw.uniform(0.02, bench.seconds("whole-plain")))
    sent = int(not command.poll())
    for _ in range(draw.choice([1, 1, 2])):
        command.signal(number)
        command.wait(draw.uniform(0, 0.05))
    ended = command.end()
    # Before the command has set its handlers, the signal ends it like any program.
    if ended.code not in (0, 130, 143, -number) or "Traceback" in ended.err:
        return Outcome("wrong", note=ended.shown)
    again = bench.resume(out) if (out / "config.yaml").exists() else bench.call(*begin, "--out", out)
    return _counted(judge(again, out, peace), sent)


def _counted(found: Outcome, injected: int) -> Outcome:
    return Outcome(found.word, injected, found.note)


def _after(bench: Bench, message: str, after: Outcome) -> Outcome:
    return Outcome("message", note=message) if after.word == "same" else after


KINDS = [
    Kind("run killed (SIGKILL), then --resume or anew", 120, killed_run),
    Kind("comparison killed (SIGKILL), then --resume or anew", 110, killed_comparison),
    Kind("workers killed (SIGKILL)", 14, killed_workers),
    Kind("worker stopped (SIGSTOP)", 20, stopped_workers),
    Kind("SIGINT or SIGTERM, then --resume or anew", 60, signalled_run),
]
