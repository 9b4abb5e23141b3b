"""Fuzzes the binding: `python tests/fuzz/binding.py --seconds 60 --seed 1`.

A call must either raise an error of an expected type and write nothing, or write its target alone, with the
right numbers. The calls run in a child process, so that a crash or a hang is reported with its case too.
Needs NumPy alone with `--extension FILE`.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib.machinery
import importlib.util
import json
import mmap
import os
import random
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from fuzz import calls, faults, knapsacks, stacks
from fuzz.memory import Dice, Memory, Pages, is_array
from fuzz.oracle import ANSWERS, SECONDS, TARGETS, UnfitError, WrongError, compare, expected
from fuzz.perceptron import answer
from fuzz.sequences import PlannedError

ANSWERS["train_perceptrons"] = answer
ANSWERS["knapsacks"] = knapsacks.answer
ANSWERS.update({name: partial(stacks.answer, name) for name in stacks.FUNCTIONS})

# MemoryError: a sequence may claim any length.
REFUSALS = (TypeError, ValueError, IndexError, KeyError, OverflowError, MemoryError, PlannedError)
# Seconds that one case may take; the largest take a few under the sanitizers.
PATIENCE = 60


class Fuzzer:
    """Runs cases against an extension; case n of a seed is always the same."""

    def __init__(self, extension: Any, seed: int) -> None:
        self.extension = extension
        self.seed = seed
        self.levels: list[str] = extension.simd_levels()
        self.pages = Pages()
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def case(self, number: int) -> None:
        """Makes one call; raises `WrongError` if its answer is wrong."""
        dice = Dice(f"{self.seed}/{number}")
        self.extension.set_simd_level(dice.choice(self.levels))
        function = dice.choices(list(calls.SHARES), list(calls.SHARES.values()))[0]
        if function == "set_simd_level":
            self._level(dice)
            return
        memory = Memory(dice, self.pages)
        args = calls.valid(function, dice, memory)
        number_of_faults = dice.choice((0, 1, 1, 2))
        for _ in range(number_of_faults):
            faults.spoil(function, args, dice, memory)
        with_offsets = function == "accumulate_" and args.get("offsets") is not None
        name = "accumulate_ with offsets" if with_offsets else function
        self._call(name, function, args, memory, bool(number_of_faults))

    def _call(self, name: str, function: str, args: dict[str, Any], memory: Memory, faulty: bool) -> None:
        before = memory.snapshot()
        try:
            answer = getattr(self.extension, function)(**args)
        except REFUSALS as error:
            where = memory.changed(before)
            if where is not None:
                raise WrongError(f"{name} refused ({error!r}) and yet wrote {where}") from error
            if not faulty:
                raise WrongError(f"{name} refused a valid call: {error!r}") from error
            self.refused[name] += 1
            return
        except Exception as error:
            raise WrongError(f"{name} raised {error!r}") from error
        target = args.get(TARGETS.get(function, ""))
        target = target if is_array(target) else None
        second = args.get(SECONDS.get(function, ""))
        where = memory.changed(before, *(array for array in (target, second) if is_array(array)))
        if where is not None:
            raise WrongError(f"{name} wrote {where}")
        after = None if target is None else np.array(target, subok=False)
        memory.restore(before)
        try:
            wanted = expected(function, args)
        # What the oracle cannot compute with is not fit either.
        except (UnfitError, *REFUSALS) as error:
            raise WrongError(f"{name} accepted what it must refuse: {error}") from error
        try:
            compare(answer, after, wanted)
        except WrongError as error:
            raise WrongError(f"{name}: {error}") from error
        self.accepted[name] += 1

    def _level(self, dice: Dice) -> None:
        level, before = faults.level(dice, self.levels), self.extension.simd_level()
        try:
            self.extension.set_simd_level(level)
        except REFUSALS as error:
            if level in self.levels or self.extension.simd_level() != before:
                raise WrongError(f"set_simd_level refused {level!r} with {error!r}") from error
            self.refused["set_simd_level"] += 1
            return
        text = bytes(level).decode(errors="replace") if isinstance(level, (bytes, bytearray)) else level
        # Not by the argument's own ==, which may be anything.
        asked = str.__str__(text) if isinstance(text, str) else None
        if asked not in self.levels or self.extension.simd_level() != asked:
            raise WrongError(f"set_simd_level accepted {type(level)} {asked!r:.40} or did not set it")
        self.accepted["set_simd_level"] += 1


def load(path: str | None) -> Any:
    """Loads the extension in this file, or the installed one."""
    if path is None:
        from fedtlu_fast import _native

        return _native
    loader = importlib.machinery.ExtensionFileLoader("_native", path)
    spec = importlib.util.spec_from_loader("_native", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def work(options: argparse.Namespace, make: Callable[[Any, int], Any]) -> int:
    """Runs in the child: writes the number of the current case, and the counts, into the shared file."""
    if options.extension is None:  # else a sanitizer has its own handlers
        faulthandler.enable()
    warnings.simplefilter("ignore")
    fuzzer = make(load(options.extension), options.seed)
    with open(options.progress, "r+b") as file:
        progress = np.frombuffer(mmap.mmap(file.fileno(), 8), dtype=np.int64)
    until = time.monotonic() + options.seconds
    number = options.case or 0
    while time.monotonic() < until:
        progress[0] = number
        try:
            fuzzer.case(number)
        except WrongError as error:
            print(f"WRONG: {error}", flush=True)
            return 1
        number += 1
        if options.case is not None:
            break
    print(json.dumps({"accepted": fuzzer.accepted, "refused": fuzzer.refused}))
    return 0


def watch(options: argparse.Namespace, script: str) -> int:
    """Runs in the parent: waits for the child, and reports the case that ended it."""
    with tempfile.NamedTemporaryFile() as progress:
        progress.write(np.int64(-1).tobytes())
        progress.flush()
        command = [sys.executable, *sys.argv, "--seed", str(options.seed), "--progress", progress.name]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            last, since = -2, time.monotonic()
            while child.poll() is None:
                time.sleep(0.05)
                number = int(np.fromfile(progress.name, dtype=np.int64)[0])
                if number != last:
                    last, since = number, time.monotonic()
                elif time.monotonic() - since > PATIENCE:
                    child.kill()
                    print(f"HANG: no end after {PATIENCE} s")
                    break
            output = child.stdout.read()
        last = int(np.fromfile(progress.name, dtype=np.int64)[0])
    if child.returncode:
        print(output, end="")
        print(f"exit status {child.returncode} at seed {options.seed}, case {last}; to run it again:")
        print(f"    python {script} --seed {options.seed} --case {last}")
        return 1
    report(json.loads(output.splitlines()[-1]), options.seed)
    return 0


def report(counts: dict[str, dict[str, int]], seed: int) -> None:
    accepted, refused = counts["accepted"], counts["refused"]
    for name in sorted({*accepted, *refused}):
        print(f"{name:36}{accepted.get(name, 0):8} accepted{refused.get(name, 0):8} refused")
    total = sum(accepted.values()) + sum(refused.values())
    print(f"{total} calls, all answered as they should be; seed {seed}")


def main(
    make: Callable[[Any, int], Any] = Fuzzer,
    script: str = "tests/fuzz/binding.py",
    description: str | None = __doc__,
) -> int:
    """Runs the fuzzer that `make` returns for an extension and a seed; returns the exit status."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="a random one by default")
    parser.add_argument("--case", type=int, default=None, help="run this case of the seed alone")
    parser.add_argument("--extension", help="the extension's file; the installed one by default")
    parser.add_argument("--progress", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(2**31)
    return work(options, make) if options.progress else watch(options, script)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main())
