"""Forces how the kernels keep their sums, whatever the device: both ways are checked and timed everywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fedtlu_fast.kernels.pairs import VARIABLE
from gpu_rows.measure import Row

SUMS = ("float64", "pairs")


@contextmanager
def kept_in(choice: str) -> Iterator[None]:
    """Sums are kept in float64 or in pairs inside of the context."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = choice
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def both_ways(name: str, run: Callable[[], object]) -> dict[str, Callable[[], object]]:
    """Returns the method with sums kept in either way; `name` alone is the way that the device decides."""

    def forced(choice: str) -> Callable[[], object]:
        def call() -> object:
            with kept_in(choice):
                return run()

        return call

    return {f"{name}_{choice}": forced(choice) for choice in SUMS}


def compare(rows: list[Row]) -> None:
    """Prints how long pairs take beside float64, and what share of the memory's speed each reaches."""
    times = {row.method: row for row in rows}
    for method, slow in times.items():
        fast = times.get(method.removesuffix("_float64") + "_pairs")
        if method.endswith("_float64") and fast is not None:
            print(
                f"  {fast.method} takes {fast.ms / slow.ms:.2f} of {method}'s time;"
                f" shares of the floor {fast.share:.2f} and {slow.share:.2f}",
                flush=True,
            )
