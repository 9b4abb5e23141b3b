"""Bad luck and bad input, put into real runs: how often, and what came of it.

    python benchmarks/faults.py [--csv FILE] [--rounds 50] [--seed 0]

Every fault is judged against the same federation left in peace: the parameters' SHA-256 has to be the same,
or the run has to end with one message, after which `--resume` reaches the same SHA-256. Linux; the full disk
needs the right to mount a tmpfs, Ray's rows need Ray.
"""

import argparse
import csv
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import yaml

CLIENTS, COHORT, SAMPLES, FEATURES, CLASSES = 400, 60, 20, 16, 4


@dataclass(frozen=True)
class Row:
    """One kind of fault."""

    fault: str
    injected: int
    outcome: str
    right: bool


class Bench:
    def __init__(self, folder: Path, rounds: int, seed: int) -> None:
        self.folder, self.rounds = folder, rounds
        self.draw = random.Random(seed)
        self.data = folder / "data"
        write_data(self.data)
        self.count = 0
        self.peace = self.finished(self.start(self.settings()))

    def settings(self, **over: object) -> dict:
        tree = {
            "task": "classification",
            "clients": CLIENTS,
            "cohort": COHORT,
            "rounds": self.rounds,
            "data": {"source": f"arrays:{self.data}", "classes": CLASSES},
            "model": {"hidden": [FEATURES, FEATURES, FEATURES]},
            "training": {"lr": 0.1, "batch_size": 4, "local_epochs": 2.0},
            "selection": {"keep": 1},
            "evaluation": {"every": 10, "local_every": 50, "trained_clients": 0},
            "checkpoint": {"every": 5},
            "execution": {"executor": "processes", "workers": 2, "at_once": 1},
        }
        for key, value in over.items():
            tree[key] = {**tree[key], **value} if isinstance(value, dict) else value
        return tree

    def out(self) -> Path:
        self.count += 1
        return self.folder / f"run{self.count}"

    def start(self, settings: dict, out: Path | None = None, wrapper: str = "") -> subprocess.Popen:
        out = out or self.out()
        file = out.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(settings))
        return self.fedtlu("run", "--config", str(file), "--out", str(out), wrapper=wrapper)

    def fedtlu(self, *arguments: str, wrapper: str = "") -> subprocess.Popen:
        code = f"{wrapper}\nfrom fedtlu_fast.cli.main import main\nmain()"
        return subprocess.Popen(
            [sys.executable, "-c", code, *arguments, "--json", "--quiet"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONSAFEPATH": "1", "OMP_WAIT_POLICY": "PASSIVE"},
        )

    def resume(self, out: Path, *arguments: str) -> subprocess.Popen:
        return self.fedtlu("run", "--resume", str(out), *arguments)

    def finished(self, process: subprocess.Popen) -> str:
        """The parameters' digest of a run that has to reach its end."""
        stdout, stderr = process.communicate(timeout=900)
        if process.returncode:
            raise SystemExit(f"a run that should have ended well did not: {stderr}")
        return json.loads(stdout)["params_sha256"]

    def refused(self, process: subprocess.Popen) -> str:
        """The one message of a run that has to stop."""
        _, stderr = process.communicate(timeout=900)
        message = " ".join(line for line in stderr.splitlines() if "Warning" not in line)
        if process.returncode in (0, None) or "Traceback" in stderr:
            raise SystemExit(f"a run that should have stopped with a message did not: {stderr}")
        return message


def write_data(folder: Path) -> None:
    folder.mkdir()
    draw = np.random.default_rng(0)
    for prefix, count in (("", CLIENTS * SAMPLES), ("test_", 200)):
        features = draw.standard_normal((count, FEATURES), dtype=np.float32)
        truth = np.random.default_rng(1).standard_normal((FEATURES, CLASSES))
        np.save(folder / f"{prefix}features.npy", features)
        np.save(folder / f"{prefix}labels.npy", (features @ truth).argmax(1))
    np.save(folder / "train_rows.npy", np.arange(CLIENTS * SAMPLES))
    np.save(folder / "train_starts.npy", np.arange(CLIENTS + 1) * SAMPLES)


def children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def kill_workers(bench: Bench) -> Row:
    process, killed = bench.start(bench.settings(execution={"retries": 1000})), 0
    while process.poll() is None:
        time.sleep(bench.draw.uniform(0.02, 0.15))
        workers = children(process.pid)
        if workers:
            try:
                os.kill(bench.draw.choice(workers), signal.SIGKILL)
                killed += 1
            except ProcessLookupError:
                pass
    same = bench.finished(process) == bench.peace
    return Row(
        f"worker killed (SIGKILL), {bench.rounds} rounds", killed, "same bits" if same else "OTHER BITS", same
    )


def kill_runs(bench: Bench) -> Row:
    out, killed = bench.out(), 0
    process = bench.start(bench.settings(), out)
    while killed < 8:
        try:
            process.wait(timeout=bench.draw.uniform(2.5, 5))
            break
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            killed += 1
        begun = (out / "config.yaml").exists()
        process = bench.resume(out) if begun else bench.start(bench.settings(), out)
    same = bench.finished(process) == bench.peace
    return Row("the run itself killed, then --resume", killed, "same bits" if same else "OTHER BITS", same)


def stop_runs(bench: Bench) -> Row:
    name, out, asked = "SIGINT or SIGTERM, then --resume", bench.out(), 0
    process = bench.start(bench.settings(), out)
    while asked < 5:
        done = rounds_done(out)
        while process.poll() is None and rounds_done(out) < done + 3:
            time.sleep(0.01)
        if process.poll() is not None:
            break
        process.send_signal(bench.draw.choice([signal.SIGINT, signal.SIGTERM]))
        _, stderr = process.communicate()
        if process.returncode not in (130, 143) or "Traceback" in stderr:
            return Row(name, asked, f"exit {process.returncode}: {stderr}", False)
        asked += 1
        process = bench.resume(out)
    same = bench.finished(process) == bench.peace
    return Row(name, asked, "exit 130 or 143 each time, same bits" if same else "OTHER BITS", same)


def rounds_done(out: Path) -> int:
    file = out / "metrics.jsonl"
    return file.read_text().count("\n") if file.exists() else 0


def full_disk(bench: Bench) -> Row:
    mount = bench.folder / "small"
    mount.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(mount)], check=False
    ).returncode:
        return Row("disk full", 0, "not tried: no right to mount", True)
    try:
        ballast = mount / "ballast"
        ballast.write_bytes(b"0" * 60_000)
        message = bench.refused(bench.start(bench.settings(), mount / "run"))
        told = "could not be written" in message and "--resume" in message
        ballast.unlink()
        subprocess.run(["mount", "-o", "remount,size=100m", str(mount)], check=True)
        same = bench.finished(bench.resume(mount / "run")) == bench.peace
    finally:
        subprocess.run(["umount", "-l", str(mount)], check=False)
    return Row(
        "disk full, then --resume",
        1,
        "one message; then same bits" if told and same else message,
        told and same,
    )


WRAPPER = """
import fedtlu_fast.data.arrays as arrays, os, signal, time
train = arrays.MappedPopulation.train
def spoilt(self, client):
    if client == {client}:
        {fault}
    return train(self, client)
arrays.MappedPopulation.train = spoilt
"""


def drawn_client(bench: Bench) -> int:
    """A client that the first rounds draw."""
    from fedtlu_fast.simulation.cohort import sample_cohort

    return sample_cohort(0, 3, CLIENTS, COHORT)[7]


def bad_client(bench: Bench, name: str, fault: str, words: str, **execution: object) -> list[Row]:
    client = drawn_client(bench)
    wrapper = WRAPPER.format(client=client, fault=fault)
    out = bench.out()
    message = bench.refused(bench.start(bench.settings(execution=execution), out, wrapper))
    told = f"client {client}" in message and words in message
    same = bench.finished(bench.resume(out)) == bench.peace
    outcome = "one message with client and round; mended, --resume: same bits" if told and same else message
    rows = [Row(f"client {name}, stop", 1, outcome, told and same)]
    if name == "kills its worker":
        return rows
    settings = bench.settings(execution={**execution, "client_errors": "drop"})
    process = bench.start(settings, out := bench.out(), wrapper)
    bench.finished(process)
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    cohorts = [json.loads(line)["cohort"] for line in (out / "selection.jsonl").read_text().splitlines()]
    times = sum(client in cohort for cohort in cohorts)
    right = all(
        (str(client) in line["failed"]) == (client in cohort)
        for line, cohort in zip(lines, cohorts, strict=True)
    )
    rows.append(
        Row(
            f"client {name}, drop",
            times,
            "left out and reported each time" if right else "NOT REPORTED",
            right,
        )
    )
    return rows


def nan_client(bench: Bench) -> Row:
    client, out = drawn_client(bench), bench.out()
    spoil = "type(held)((held.pool[0] * float('nan'), held.pool[1]), held.rows)"
    fault = f"held = train(self, client); return {spoil}"
    bench.finished(bench.start(bench.settings(), out, WRAPPER.format(client=client, fault=fault)))
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    cohorts = [json.loads(line)["cohort"] for line in (out / "selection.jsonl").read_text().splitlines()]
    times = sum(client in cohort for cohort in cohorts)
    right = all(
        (client in line["refused"]) == (client in cohort) for line, cohort in zip(lines, cohorts, strict=True)
    )
    return Row(
        "client returns NaN", times, "refused and reported each time" if right else "NOT REFUSED", right
    )


def changed_config(bench: Bench) -> Row:
    out = bench.out()
    bench.finished(bench.start(bench.settings(rounds=10), out))
    file = out / "config.yaml"
    file.write_text(file.read_text().replace("lr: 0.1", "lr: 0.2"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    message = bench.refused(bench.resume(out))
    untouched = before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    right = untouched and "they have changed since" in message
    return Row("resume with changed settings", 1, "refused, nothing touched" if right else message, right)


def small_store(bench: Bench) -> Row:
    try:
        import ray  # noqa: F401
    except ImportError:
        return Row("Ray's object store too small", 0, "not tried: Ray is not installed", True)
    wrapper = "import ray; ray.init(num_cpus=1, object_store_memory=80_000_000, log_to_driver=False)"
    large = {
        "rounds": 1,
        "clients": 4,
        "cohort": 4,
        "model": {"hidden": [5000, 5000]},
        "training": {"local_epochs": None, "local_steps": 1},
        "selection": {"selector": "full"},
    }
    ends = [
        bench.finished(bench.start(bench.settings(**large, execution=own), None, first))
        for own, first in (({"executor": "serial"}, ""), ({"executor": "ray", "workers": 1}, wrapper))
    ]
    outcome = "Ray spills to disk: same bits" if ends[0] == ends[1] else "OTHER BITS"
    return Row("Ray's object store (80 MB) too small for 100 MB vectors", 1, outcome, ends[0] == ends[1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), args.rounds, args.seed)
        steps = [
            lambda: [kill_workers(bench)],
            lambda: [kill_runs(bench)],
            lambda: [stop_runs(bench)],
            lambda: [full_disk(bench)],
            lambda: bad_client(bench, "raises", "raise ValueError('torn file')", "torn file"),
            lambda: bad_client(bench, "hangs", "time.sleep(3600)", "client_seconds", client_seconds=2.0),
            lambda: bad_client(bench, "kills its worker", "os.kill(os.getpid(), signal.SIGKILL)", "killed"),
            lambda: [nan_client(bench)],
            lambda: [changed_config(bench)],
            lambda: [small_store(bench)],
        ]
        for step in steps:
            for row in step():
                rows.append(row)
                print(f"{row.fault} | {row.injected} | {row.outcome}", flush=True)
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [field.name for field in fields(Row)])
            writer.writeheader()
            writer.writerows(asdict(row) for row in rows)
    if not all(row.right for row in rows):
        sys.exit("some faults were not survived as they should be")


if __name__ == "__main__":
    main()
