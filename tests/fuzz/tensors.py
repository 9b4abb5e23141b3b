"""Fuzzes the functions on tensors: `python tests/fuzz/tensors.py --seconds 60 --seed 1`.

Such a function either returns NotImplemented, or raises an error of an expected type, and writes nothing; or
it gives the bits that the function on arrays gives, which `binding.py` fuzzes, and every argument is plain by
torch's own account. It must take a call without faults. Needs NumPy and torch with `--extension FILE`.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from fuzz import binding, odd_tensors
from fuzz.memory import Dice
from fuzz.oracle import WrongError
from fuzz.tensor_calls import DTYPES, FUNCTIONS, Case, valid
from torch import Tensor

REFUSALS = (TypeError, ValueError, OverflowError)
TARGETS = {"accumulate_on": "aggregate", "aggregate_of": "out", "masked_apply_on": "params"}


def array(given: Any) -> Any:
    """Returns the array that the functions on arrays take for a tensor: a copy."""
    if not isinstance(given, Tensor):
        return given
    plain = given.detach()
    return (
        (plain.view(torch.int16) if plain.dtype in (torch.bfloat16, torch.float16) else plain).numpy().copy()
    )


def expected(extension: Any, function: str, args: dict[str, Any]) -> tuple[Any, Any]:
    """Returns the answer and the target's new values, by the functions on arrays."""
    own = {name: array(value) for name, value in args.items() if name not in ("clients", "tensors")}
    if function == "layer_stats_of":
        return extension.layer_stats(
            own["delta"], DTYPES[args["delta"].dtype], own["offsets"], own["threads"]
        ), None
    if function == "layer_stats_of_list":
        layers = list(args["tensors"])
        flat = [array(each.reshape(-1)) for each in layers]
        return extension.layer_stats_list(flat, [DTYPES[each.dtype] for each in layers], own["threads"]), None
    if function == "spread_of":
        count, mean, m2 = own["moments"].reshape(5, -1)[:3]
        return np.sqrt([m2 / np.maximum(count, 1), m2 + count * (mean * mean)]), None
    if function == "score_of":
        return None, None
    if function == "accumulate_on":
        call = {**own, "dtype": DTYPES[args["client"].dtype]}
        return extension.accumulate_(**call), call["aggregate"]
    if function == "aggregate_of":
        rows = list(args["clients"])
        weights = np.asarray(own["weights"], dtype=np.float64)
        call = {
            **own,
            "clients": [array(row) for row in rows],
            "weights": weights,
            "dtype": DTYPES[rows[0].dtype],
        }
        return extension.aggregate(**call), call["out"]
    call = {**own, "dtype": DTYPES[args["delta"].dtype]}
    return extension.masked_apply_(**call), call["params"]


class Fuzzer:
    """Runs cases against an extension; case n of a seed is always the same, but for the other thread."""

    def __init__(self, extension: Any, seed: int) -> None:
        if not extension.learn_torch(torch):
            raise SystemExit("this version of torch has no DLPack table")
        self.extension, self.seed = extension, seed
        self.accepted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()

    def case(self, number: int) -> None:
        """Makes one call; raises `WrongError` if its answer is wrong."""
        dice = Dice(f"{self.seed}/{number}")
        torch.manual_seed(dice.getrandbits(60))
        function = dice.choice(FUNCTIONS)
        case = Case(dice)
        args = valid(function, case)
        faulty = dice.random() < 0.65
        call: Callable[..., Any] = getattr(self.extension, function)
        if faulty:
            odd_tensors.spoil(args, args.get(TARGETS.get(function, "")), dice)
        elif dice.rarely():
            self._beside_another_thread(function, call, args)
            return
        before = [block.clone() for block in case.blocks]
        target = args.get(TARGETS.get(function, ""))
        try:
            fit = odd_tensors.fit(args, target)
            wanted = expected(self.extension, function, args) if fit else None
        except Exception:  # of an argument that is wrong
            wanted = None
        try:
            answer = odd_tensors.inside(args, lambda: call(**args))
        except REFUSALS as error:
            if not faulty:
                raise WrongError(f"{function} raised {error!r} for a valid call") from error
            answer = NotImplemented
        if answer is NotImplemented:
            if not faulty:
                raise WrongError(f"{function} did not take a valid call")
            if any(not torch.equal(block, old) for block, old in zip(case.blocks, before, strict=True)):
                raise WrongError(f"{function} refused and yet wrote")
            self.refused[function] += 1
            return
        if wanted is None:
            raise WrongError(f"{function} took what is not plain, or wrong: {odd_tensors.described(args)}")
        if target is not None:
            _compare(array(target), wanted[1], f"{function}'s target")
            odd_tensors.write(target, before, case.blocks)
        if any(not torch.equal(block, old) for block, old in zip(case.blocks, before, strict=True)):
            raise WrongError(f"{function} wrote beside its target")
        if function != "score_of":
            _compare(answer, wanted[0], f"the answer of {function}")
        self.accepted[function] += 1

    def _beside_another_thread(self, function: str, call: Callable[..., Any], args: dict[str, Any]) -> None:
        """Calls while another thread changes offsets, numbers and lists: nothing else may be read."""
        with _changing(args):
            for _ in range(20):
                try:
                    call(**args)
                except REFUSALS as error:
                    raise WrongError(f"{function} raised {error!r} beside another thread") from error
        self.accepted[f"{function} beside a thread"] += 1


@contextmanager
def _changing(args: dict[str, Any]) -> Iterator[None]:
    done = threading.Event()
    arrays = [args[name].numpy() for name in ("offsets", "mask") if isinstance(args.get(name), Tensor)]
    lists = [args[name] for name in ("clients", "tensors", "weights") if isinstance(args.get(name), list)]
    rng = np.random.default_rng(1)

    def change() -> None:
        while not done.is_set():
            for each in arrays:
                if each.dtype == np.bool_:
                    np.logical_not(each, out=each)
                elif each.size:
                    each[rng.integers(each.size)] = rng.choice((0, -1, 2**62, 7))
            for each in lists:
                taken = each[:]
                each.clear()
                each.extend(taken)

    thread = threading.Thread(target=change)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        sys.setswitchinterval(before)


def _compare(got: Any, wanted: Any, what: str) -> None:
    if isinstance(wanted, tuple):
        for one, two in zip(got, wanted, strict=True):
            _compare(one, two, what)
    elif wanted is None or got is None:
        if wanted is not got:
            raise WrongError(f"{what} is {type(got)}, not {type(wanted)}")
    elif got.shape != wanted.shape or not np.array_equal(_bits(got), _bits(wanted)):
        raise WrongError(f"{what} has other bits")


def _bits(numbers: Any) -> Any:
    numbers = np.ascontiguousarray(numbers)
    if numbers.dtype.kind == "f":  # NaN of any payload
        numbers = np.where(np.isnan(numbers), numbers.dtype.type(np.nan), numbers)
    return numbers.view(np.uint8)


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch.set_num_threads(1)
    sys.exit(binding.main(Fuzzer, "tests/fuzz/tensors.py", __doc__))
