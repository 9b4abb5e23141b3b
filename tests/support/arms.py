"""Runs the arms of a comparison in this process."""

from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from typing import Any

from fedtlu_fast.experiments.arm_pool import ArmPool


class InProcess(Executor):
    """Runs arms one after another in this process, with the workers' code but without starting processes."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def pool_in_process(count: int, limit: float | None) -> Iterator[ArmPool]:
    yield ArmPool(InProcess(), limit)
