"""The checks of an executor."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch

from fedtlu_fast.build.trial import executor_and_work
from fedtlu_fast.client_steps import ClientContext, ClientStep
from fedtlu_fast.client_steps.orders import Orders
from fedtlu_fast.client_steps.step import Vectors
from fedtlu_fast.clients.trainer import ClientStart, ClientUpdate
from fedtlu_fast.errors import ClientError, InputError, cause
from fedtlu_fast.executors.executor import Executor, ExecutorPart, LaneWork
from fedtlu_fast.executors.lanes import Lane, LaneResult, cut
from fedtlu_fast.parts import part, values
from fedtlu_fast.testing.common import ConformanceError, found_again, must, same
from fedtlu_fast.torch_state import own_state

COHORT = (0, 1, 2, 3, 4, 5, 6)
BROKEN = 7
"""The client whose training fails."""
SETTINGS = {
    "task": "classification",
    "clients": len(COHORT) + 1,
    "cohort": len(COHORT),
    "data": {"source": "synthetic", "classes": 3, "synthetic": {"features": 4, "fewest": 4, "most": 8}},
    "model": {"hidden": [3]},
    "training": {"batch_size": 4},
    "selection": {"selector": "full"},
    "client_selection": {"selector": "snr", "budget": 1},
}
"""The federation of the checks."""


@part
class Watched(ClientStep):
    """Counts how often each client has trained, and has one of them fail.

    Attributes:
        fails: the number of the client that fails.
    """

    fails: int = BROKEN

    def before(self, client: ClientContext, start: ClientStart) -> ClientStart:
        """See `ClientStep`."""
        if client.number == self.fails:
            raise ValueError("its data are spoilt")
        return start

    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        """See `ClientStep`."""
        return replace(update, memory={"times": client.memory.get("times", 0) + 1})


def check_executor(executor: str | ExecutorPart) -> None:
    """Checks an executor over some rounds of a tiny federation, which it trains in its own way.

    Its results are those of the run's own process, to the bit, and come in the order of the lanes. Each stays
    as it is until the next one is asked for. It does not change the global vectors, and takes new ones in
    every round. It can be used after a round without lanes, a round that was broken off and a round in which
    a client failed, whose error arrives as itself. It can be closed twice, and leaves no process of
    `multiprocessing` behind. The part survives pickling, and is found again by its name.

    Args:
        executor: a part, or the name of one.

    Raises:
        ConformanceError: a promise is broken.
        InputError: there is no such executor, or it cannot train here.
    """
    given = {"executor": executor, "engine": "torch"}
    with own_state(threads=1):
        made, work = executor_and_work({**SETTINGS, "client_steps": [Watched()], "execution": given})
        again = found_again("executor", made)
        must(values(again) == values(made), "it is found again by its name with other parameters")
        begun = multiprocessing.active_children()
        start = torch.linspace(-1, 1, work.trainer.layout.size), torch.empty(0)
        with _named("open"):
            opened = made.open(work)
        try:
            _check_rounds(opened, work, start)
        finally:
            with _named("close"):
                opened.close()
        with _named("a second close"):
            opened.close()
        left = [process for process in multiprocessing.active_children() if process not in begun]
        must(not left, f"close left processes behind: {left}")


def _check_rounds(opened: Executor, work: LaneWork, start: Vectors) -> None:
    whole, single = _lanes(work, 1, 3), _lanes(work, 2, len(COHORT))
    _check_round("no lanes", opened, work, start, [])
    _check_round("round 1, 3 lanes", opened, work, start, whole, pause=0.05)
    start = start[0] + 0.01, start[1]
    _check_round(f"round 2, {len(single)} lanes", opened, work, start, single)
    _check_round("round 2, probes", opened, work, start, [replace(lane, probing=True) for lane in whole])
    _break_off(opened, start, _lanes(work, 3, 3))
    _check_round("after a round broken off", opened, work, start, _lanes(work, 4, 3))
    _check_failure(opened, work, start)
    _check_round("after a round in which a client failed", opened, work, start, _lanes(work, 6, 2))


def _lanes(work: LaneWork, index: int, count: int, cohort: Sequence[int] = COHORT) -> list[Lane]:
    """The lanes of a round whose clients each send one block, and have something to remember."""
    blocks = tuple(range(len(work.trainer.layout.blocks)))
    sent = {client: (blocks[client % len(blocks)],) for client in cohort}
    memory = {client: {"Watched": {"times": index}} for client in cohort[:3]}
    return cut(index, cohort, count, orders=Orders(dict.fromkeys(cohort, blocks), sent), memory=memory)


def _check_round(
    what: str, opened: Executor, work: LaneWork, start: Vectors, lanes: Sequence[Lane], pause: float = 0.0
) -> None:
    """One round beside the same in this process.

    Args:
        what: the round, for messages.
        opened: the executor.
        work: what it was opened with.
        start: the global vectors.
        lanes: of the round.
        pause: seconds between two results.
    """
    expected = [_copied(work.trainer.train(start, lane)) for lane in lanes]
    given = start[0].clone(), start[1].clone()
    count = 0
    with _named(what):
        for result in opened.train(given, lanes):
            must(count < len(lanes), f"{what}: there are more results than lanes")
            _compare(f"{what}, lane {count}", result, expected[count])
            time.sleep(pause)
            _compare(f"{what}, lane {count}, a little later", result, expected[count])
            count += 1
    must(count == len(lanes), f"{what}: {len(lanes)} lanes gave {count} results")
    must(all(map(same, given, start)), f"{what}: the executor changed the global vectors")


def _compare(what: str, found: LaneResult, expected: LaneResult) -> None:
    must(isinstance(found, LaneResult), f"{what}: the result is of type {type(found).__name__}")
    one, other = ((result.lane.index, result.lane.clients) for result in (found, expected))
    must(one == other, f"{what}: the results do not come in the order of the lanes")
    # Probes train nothing, and have no vectors.
    alike = expected.lane.probing or (
        found.single == expected.single and all(map(same, found.vectors, expected.vectors))
    )
    must(alike, f"{what}: the vectors have other bits than in the run's own process")
    for name, value in vars(expected.reports).items():
        # Their text says everything, and nothing of how they came here.
        alike = repr(getattr(found.reports, name)) == repr(value)
        must(alike, f"{what}: the reports' {name} are not those of the run's own process")


def _copied(result: LaneResult) -> LaneResult:
    params, buffers = (vector.clone() for vector in result.vectors)
    return replace(result, vectors=(params, buffers))


def _break_off(opened: Executor, start: Vectors, lanes: Sequence[Lane]) -> None:
    with _named("a round broken off"):
        results = opened.train(start, lanes)
        next(results)
        if hasattr(results, "close"):
            results.close()


def _check_failure(opened: Executor, work: LaneWork, start: Vectors) -> None:
    """A round in which one client fails."""
    lanes, what = _lanes(work, 5, 4, (*COHORT[:3], BROKEN, *COHORT[3:6])), "a client that fails"
    expected: tuple[object, ...] = ()
    try:
        for lane in lanes:
            work.trainer.train(start, lane)
    except ClientError as error:
        expected = _told(error)
    try:
        for _ in opened.train(start, lanes):
            pass
    except ClientError as error:
        alike = _told(error) == expected
        must(alike, f"{what}: the error is {_told(error)}, in the run's own process {expected}")
    except Exception as error:
        raise ConformanceError(
            f"{what}: expected its ClientError; the executor raised {cause(error)}"
        ) from error
    else:
        raise ConformanceError(f"{what}: the round ended without an error")


def _told(error: ClientError) -> tuple[object, ...]:
    return type(error), error.client, error.round_index, error.reason


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Inside, what the executor raises is a broken promise."""
    try:
        yield
    except (ConformanceError, InputError):
        raise
    except Exception as error:
        raise ConformanceError(f"{what}: the executor raised {cause(error)}") from error
