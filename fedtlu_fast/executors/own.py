"""Names an executor of the user's in the errors that it raises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager

from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.errors import LESS_MEMORY, InputError, WorkerError, cause
from fedtlu_fast.executors.executor import Executor, ExecutorPart
from fedtlu_fast.executors.lanes import Lane, LaneResult
from fedtlu_fast.own_errors import named_errors

FIELD = "execution.executor"
"""The setting that errors name."""


class OwnExecutor:
    """An executor of the user's, whose errors name the part that opened it."""

    def __init__(self, part: ExecutorPart, executor: Executor) -> None:
        """Keeps both.

        Args:
            part: the part that settings name.
            executor: the object that it opened.
        """
        self._part, self._executor = part, executor

    def train(self, start: Vectors, lanes: Sequence[Lane]) -> Iterator[LaneResult]:
        """See `Executor`.

        Raises:
            WorkerError: a process of a pool of `concurrent.futures` has ended.
            InputError: the executor raised an error of its own, or returned no result for a lane.
        """
        with self._named():
            results = iter(self._executor.train(start, lanes))
        for _ in lanes:
            with self._named():
                result = next(results, None)
            if not isinstance(result, LaneResult):
                expected = f"{self._name}.train() to return a LaneResult for each of the {len(lanes)} lanes"
                raise InputError(FIELD, result, expected)
            yield result

    def close(self) -> None:
        """See `Executor`."""
        with self._named():
            self._executor.close()

    @property
    def _name(self) -> str:
        return type(self._executor).__name__

    @contextmanager
    def _named(self) -> Iterator[None]:
        with named_errors(FIELD, self._part):
            try:
                yield
            except BrokenExecutor as error:
                raise WorkerError(
                    f"a worker of {FIELD}={type(self._part).__name__} ended before its clients were trained "
                    f"({cause(error)}): killed, by the system if memory ran out, or by its own code. If "
                    f"memory is short, {LESS_MEMORY}"
                ) from error
