"""Names an executor of the user's in the errors that it raises."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import contextmanager

from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.errors import LESS_MEMORY, InputError, WorkerError, cause, kind_of
from fedtlu_fast.executors.executor import Executor, ExecutorPart
from fedtlu_fast.executors.lane_trainer import LaneTrainer
from fedtlu_fast.executors.lanes import Lane, LaneResult
from fedtlu_fast.own_errors import named_errors

FIELD = "execution.executor"
"""The setting that errors name."""


class OwnExecutor:
    """An executor of the user's, whose errors name the part that opened it."""

    def __init__(self, part: ExecutorPart, executor: Executor, trainer: LaneTrainer) -> None:
        """Keeps them.

        Args:
            part: the part that settings name.
            executor: the object that it opened.
            trainer: the trainer of this process, which the part received.

        Raises:
            InputError: the object is no executor.
        """
        if not all(callable(getattr(executor, name, None)) for name in ("train", "close")):
            expected = f"{type(part).__name__}.open() to return an object with the methods train and close"
            raise InputError(FIELD, kind_of(executor), expected)
        self._part, self._executor, self._trainer = part, executor, trainer

    def train(self, start: Vectors, lanes: Sequence[Lane]) -> Iterator[LaneResult]:
        """See `Executor`.

        Raises:
            WorkerError: a process of a pool of `concurrent.futures` has ended.
            InputError: the executor raised an error of its own, returned no result for a lane, results in
                another order, too many, or one whose memory holds a later result.
        """
        with self._named():
            found = self._executor.train(start, lanes)
        if not isinstance(found, Iterable):
            expected = f"{self._name}.train() to return an iterator of LaneResults; it may be a generator"
            raise InputError(FIELD, kind_of(found), expected)
        results = iter(found)
        for lane in lanes:
            with self._named():
                result = next(results, None)
            if not isinstance(result, LaneResult):
                expected = f"{self._name}.train() to return a LaneResult for each of the {len(lanes)} lanes"
                raise InputError(FIELD, result, expected)
            self._check(result, lane)
            yield result
        with self._named():
            more = next(results, None)
        if more is not None:
            expected = f"{self._name}.train() to return {len(lanes)} results, one for each lane"
            raise InputError(FIELD, "more results", expected)

    def _check(self, result: LaneResult, lane: Lane) -> None:
        if (result.lane.index, result.lane.clients) != (lane.index, lane.clients):
            expected = f"{self._name}.train() to return the results in the order of the lanes"
            raise InputError(FIELD, f"lane {result.lane.index} in the place of lane {lane.index}", expected)
        latest, vector = self._trainer.latest, result.vectors[0]
        if latest is None or latest is result or not vector.numel() or not result.reports.total:
            return
        if vector.data_ptr() == latest.vectors[0].data_ptr():
            raise InputError(
                FIELD,
                f"the result of lane {lane.index}, whose memory holds that of lane {latest.lane.index}",
                f"{self._name}.train() to return each result before it trains the next lane",
                "Use yield instead of a list, or copy the vectors.",
            )

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
