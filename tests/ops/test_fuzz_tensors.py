"""Tests the fuzzer of the functions on tensors: a short run, and planted bugs that it finds."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from fuzz import tensors
from fuzz.oracle import WrongError
from fuzz.tensor_calls import FUNCTIONS
from support.sampling import seed

native: Any = pytest.importorskip("fedtlu_fast.ops.native", exc_type=ImportError)
if not native.READS_TENSORS:
    pytest.skip("torch before 2.10", allow_module_level=True)


@pytest.mark.parametrize("seconds", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_every_call_on_tensors_is_answered_or_refused(seconds: int) -> None:
    command = [sys.executable, tensors.__file__, "--seconds", str(seconds), "--seed", str(seed())]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 120)
    assert result.returncode == 0, result.stdout + result.stderr
    if seconds > 1:
        lines = re.findall(r"^(\S+) +(\d+) accepted +(\d+) refused$", result.stdout, re.M)
        assert {name for name, accepted, refused in lines if int(accepted) and int(refused)} == set(FUNCTIONS)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Planted:
    """Wraps the extension with a bug: `spoil(call, args)` replaces the answer of one function."""

    def __init__(self, function: str, spoil: Callable[..., Any]) -> None:
        self.function, self.spoil = function, spoil

    def __getattr__(self, name: str) -> Any:
        call = getattr(native.extension, name)
        return (lambda **args: self.spoil(call, args)) if name == self.function else call


def run(fuzzer: tensors.Fuzzer, cases: int) -> None:
    for number in range(cases):
        fuzzer.case(number)


def refuses(call: Callable[..., Any], args: dict[str, Any]) -> Any:
    return NotImplemented


def takes_everything(call: Callable[..., Any], args: dict[str, Any]) -> Any:
    answer = call(**args)
    return None if answer is NotImplemented else answer


def writes_an_input(call: Callable[..., Any], args: dict[str, Any]) -> Any:
    answer = call(**args)
    given = args["client"]
    if answer is not NotImplemented and given.numel() and given is not args["aggregate"]:
        given.detach().view(torch.uint8)[0] ^= 1
    return answer


def writes_and_refuses(call: Callable[..., Any], args: dict[str, Any]) -> Any:
    call(**args)
    return NotImplemented


def is_inexact(call: Callable[..., Any], args: dict[str, Any]) -> Any:
    answer = call(**args)
    if answer is not NotImplemented and answer is not None:
        answer[1] *= 1 + 1e-15
    return answer


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (refuses, "did not take a valid call"),
        (takes_everything, "took what is not plain"),
        (writes_an_input, "wrote beside its target"),
        (writes_and_refuses, "accumulate_on"),
        (is_inexact, "has other bits"),
    ],
)
def test_the_fuzzer_notices(spoil: Callable[..., Any], message: str) -> None:
    fuzzer = tensors.Fuzzer(Planted("accumulate_on", spoil), seed=secrets.randbelow(2**31))
    with pytest.raises(WrongError, match=message):
        run(fuzzer, 2000)
