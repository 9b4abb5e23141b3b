"""Tests the binding's fuzzer: a short run, and planted bugs that it finds (.ci/fuzz runs it sanitized)."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz import binding, calls, faults
from fuzz.memory import Dice, address, is_array
from fuzz.oracle import TARGETS, WrongError
from support.sampling import seed

_native: Any = pytest.importorskip("fedtlu_fast._native", exc_type=ImportError)

NAMES = (*calls.SHARES, "accumulate_ with offsets")
COMPUTING = tuple(name for name in calls.SHARES if name != "set_simd_level")


def fuzz(script: Path, *arguments: str, timeout: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)


@pytest.mark.parametrize("seconds", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_every_call_is_answered_or_refused(seconds: int) -> None:
    arguments = ("--seconds", str(seconds), "--seed", str(seed()))
    result = fuzz(Path(binding.__file__), *arguments, timeout=seconds + 120)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = re.findall(r"^(\S+(?: with offsets)?) +(\d+) accepted +(\d+) refused$", result.stdout, re.M)
    assert {name for name, accepted, refused in lines if int(accepted) and int(refused)} == set(NAMES)


class Planted:
    """Wraps the binding with a bug: `spoil(call, args)` replaces the answer of one function."""

    def __init__(self, function: str, spoil: Callable[..., Any]) -> None:
        self.function = function
        self.spoil = spoil

    def __getattr__(self, name: str) -> Any:
        call = getattr(_native, name)
        if name != self.function:
            return call
        return lambda *args, **named: self.spoil(call, *args, **named)


def assert_noticed(planted: Planted, message: str = "", cases: int = 4000) -> None:
    """Checks that the fuzzer reports the planted bug."""
    fuzzer = binding.Fuzzer(planted, seed=secrets.randbelow(2**31))
    for number in range(cases):
        try:
            fuzzer.case(number)
        except WrongError as error:
            if str(error).startswith(planted.function) and message in str(error):
                return
    raise AssertionError(f"not noticed in {cases} cases of seed {fuzzer.seed}")


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    level = _native.simd_level()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    _native.set_simd_level(level)


def target_of(named: dict[str, Any]) -> Any:
    return next(named[name] for name in TARGETS.values() if name in named)


def flip(array: np.ndarray[Any, Any], at: int) -> None:
    """Changes a byte of the block in which an array lies, counted from the array's start."""
    block = array
    while is_array(block.base):
        block = block.base
    at += address(array) - address(block)
    if 0 <= at < block.size and block.flags.writeable and block.dtype == np.uint8:
        block[at] ^= 1


@pytest.mark.parametrize("function", ["accumulate_", "aggregate", "masked_apply_"])
@pytest.mark.parametrize(
    "where", ["the first bit", "the last bit", "the byte before", "the byte after", "an input"]
)
def test_the_fuzzer_notices_a_write_that_is_wrong(function: str, where: str) -> None:
    def spoil(call: Any, **named: Any) -> Any:
        answer = call(**named)
        target = target_of(named)
        size = target.nbytes
        if where == "an input":
            flip(named["offsets"] if is_array(named.get("offsets")) else target, 0)
        elif size:
            flip(
                target, {"the first bit": 0, "the last bit": size - 1, "the byte before": -1}.get(where, size)
            )
        return answer

    assert_noticed(Planted(function, spoil))


@pytest.mark.parametrize("function", ["accumulate_", "aggregate", "masked_apply_"])
def test_the_fuzzer_notices_a_refusal_that_wrote(function: str) -> None:
    def spoil(call: Any, **named: Any) -> Any:
        try:
            return call(**named)
        except ValueError:
            target = target_of(named)
            if is_array(target) and target.size and target.flags.writeable:
                flip(target, 0)
            raise

    assert_noticed(Planted(function, spoil), "and yet wrote")


@pytest.mark.parametrize("function", COMPUTING)
def test_the_fuzzer_notices_a_check_that_is_missing(function: str) -> None:
    def spoil(call: Any, **named: Any) -> Any:
        try:
            return call(**named)
        except (TypeError, ValueError):
            return None

    assert_noticed(Planted(function, spoil), "accepted what it must refuse")


@pytest.mark.parametrize("function", COMPUTING)
def test_the_fuzzer_notices_what_is_refused_or_raised_wrongly(function: str) -> None:
    def refuse(call: Any, **named: Any) -> Any:
        raise ValueError("planted")

    def fail(call: Any, **named: Any) -> Any:
        raise RuntimeError("planted")

    assert_noticed(Planted(function, refuse), "refused a valid call")
    assert_noticed(Planted(function, fail), "RuntimeError")


@pytest.mark.parametrize("row", range(5))
@pytest.mark.parametrize("function", ["layer_stats", "layer_stats_list", "accumulate_", "aggregate"])
def test_the_fuzzer_notices_moments_that_are_wrong(function: str, row: int) -> None:
    def spoil(call: Any, **named: Any) -> Any:
        answer = call(**named)
        moments = answer[0] if isinstance(answer, tuple) else answer
        if moments is not None and moments.size:
            moments[row, -1] = moments[row, -1] * (1 + 1e-7) + 1e-7
        return answer

    assert_noticed(Planted(function, spoil))


def test_the_fuzzer_notices_moments_of_clients_that_are_wrong() -> None:
    def spoil(call: Any, **named: Any) -> Any:
        answer = call(**named)
        if answer[1] is not None:
            answer[1][:] = answer[1][::-1].copy()
        return answer

    assert_noticed(Planted("aggregate", spoil))


def test_the_fuzzer_notices_a_level_that_is_not_set() -> None:
    assert_noticed(Planted("set_simd_level", lambda call, level: None))


def test_a_case_is_the_same_every_time() -> None:
    def words(number: int) -> list[bytes]:
        dice = Dice(f"7/{number}")
        memory = binding.Memory(dice, binding.Pages())
        args = calls.valid("aggregate", dice, memory)
        faults.spoil("aggregate", args, dice, memory)
        return [block.tobytes() for block in memory.blocks]

    assert words(3) == words(3) != words(4)


@pytest.mark.parametrize(
    ("end", "message"),
    [("os.kill(os.getpid(), signal.SIGSEGV)", "exit status -11"), ("time.sleep(99)", "HANG")],
)
def test_the_fuzzer_says_which_case_ended_the_process(end: str, message: str, tmp_path: Path) -> None:
    script = tmp_path / "planted.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, signal, sys, time
            sys.path.insert(0, {str(Path(binding.__file__).parents[1])!r})
            from fedtlu_fast import _native
            from fuzz import binding, calls, faults

            class Planted:
                def __getattr__(self, name):
                    return getattr(_native, name)

                def aggregate(self, **named):
                    if len(named.get("clients") or ()) == 2:
                        {end}
                    return _native.aggregate(**named)

            binding.load = lambda path: Planted()
            binding.PATIENCE = 2
            sys.exit(binding.main())
            """
        )
    )
    first = fuzz(script, "--seed", "5", timeout=60)
    assert first.returncode == 1
    assert message in first.stdout
    again = re.search(r"--seed 5 --case \d+", first.stdout)
    assert again is not None, first.stdout
    second = fuzz(script, *again.group().split(), timeout=60)
    assert (second.returncode, second.stdout) == (1, first.stdout)
