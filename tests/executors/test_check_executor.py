"""`check_executor`: our own executors pass, and every promise that is broken is caught."""

import multiprocessing
import subprocess
import sys
import threading
import time
from dataclasses import field
from importlib.util import find_spec

import pytest

from fedtlu_fast import ExecutorPart, InputError, part
from fedtlu_fast.errors import ClientError
from fedtlu_fast.executors.in_process import InProcess
from fedtlu_fast.executors.lanes import ClientReports, LaneResult
from fedtlu_fast.registry import NAMES
from fedtlu_fast.testing import ConformanceError, check_executor

OURS = [name for name in NAMES["executor"] if name != "ray"]


@pytest.mark.parametrize("name", OURS)
def test_our_executors_pass(name):
    if name == "processes" and not sys.platform.startswith("linux"):
        pytest.skip("workers are forked")
    check_executor(name)


@pytest.mark.slow  # to start Ray takes ten seconds
@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")
def test_ray_passes(tmp_path):
    """Elsewhere than in the checkout, from which Ray's workers would import a package without kernels."""
    code = "from fedtlu_fast.testing import check_executor; check_executor('ray')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]


def test_an_executor_of_ones_own_passes():
    check_executor("support.own_executors:Backward")


def test_what_does_not_exist_or_cannot_train_here_is_bad_input():
    with pytest.raises(InputError, match=r"execution.executor: got 'procesess'. Did you mean processes"):
        check_executor("procesess")
    with pytest.raises(InputError, match=r"execution.fault: got None; expected a value"):
        check_executor(f"{__name__}:Faulty")


# --- executors that break a promise ----------------------------------------------------------------


class Backwards(InProcess):
    """Hands out the last lane first."""

    def train(self, start, lanes):
        yield from super().train(start, lanes[::-1])


class Short(InProcess):
    """Loses a lane."""

    def train(self, start, lanes):
        yield from super().train(start, lanes[:-1])


class Long(InProcess):
    """Trains a lane twice."""

    def train(self, start, lanes):
        yield from super().train(start, [*lanes, *lanes[-1:]])


class Rounding(InProcess):
    """Gives other bits."""

    def train(self, start, lanes):
        for result in super().train(start, lanes):
            result.vectors[0].mul_(1 + 1e-6)
            yield result


class Stale(InProcess):
    """Keeps the global vectors of the first round."""

    start = None

    def train(self, start, lanes):
        self.start = self.start or (start[0].clone(), start[1].clone())
        yield from super().train(self.start, lanes)


class Meddling(InProcess):
    """Changes the global vectors once all is done."""

    def train(self, start, lanes):
        yield from super().train(start, lanes)
        start[0].add_(1)


class Hasty(InProcess):
    """Goes on with the memory of a result that is still in use."""

    def train(self, start, lanes):
        for result in super().train(start, lanes):
            threading.Timer(0.01, result.vectors[0].zero_).start()
            yield result


class Forgetful(InProcess):
    """Leaves out what clients remember."""

    def train(self, start, lanes):
        for result in super().train(start, lanes):
            result.reports.memory.clear()
            yield result


class Blank(InProcess):
    """Says nothing of the clients."""

    def train(self, start, lanes):
        for result in super().train(start, lanes):
            yield LaneResult(result.lane, result.vectors, result.single, ClientReports())


class Bare(InProcess):
    """Gives vectors alone."""

    def train(self, start, lanes):
        for result in super().train(start, lanes):
            yield result.vectors


class Greedy(InProcess):
    """Expects a lane."""

    def train(self, start, lanes):
        assert lanes[0].clients
        return super().train(start, lanes)


class Busy(InProcess):
    """Cannot be used after a round that was broken off."""

    busy = False

    def train(self, start, lanes):
        if self.busy:
            raise RuntimeError("it is still at work")
        self.busy = True
        yield from super().train(start, lanes)
        self.busy = False


class Wrapping(InProcess):
    """Makes an error of its own of a client's."""

    def train(self, start, lanes):
        try:
            yield from super().train(start, lanes)
        except ClientError as error:
            raise RuntimeError("a worker failed") from error


class Blaming(InProcess):
    """Names another client."""

    def train(self, start, lanes):
        try:
            yield from super().train(start, lanes)
        except ClientError as error:
            raise ClientError(0, error.round_index, error.reason) from error


class Silent(InProcess):
    """Ends the round where a client fails."""

    def train(self, start, lanes):
        try:
            yield from super().train(start, lanes)
        except ClientError:
            return


class Worn(InProcess):
    """Is of no use after a client failed."""

    worn = False

    def train(self, start, lanes):
        assert not self.worn, "worn out"
        try:
            yield from super().train(start, lanes)
        except ClientError:
            self.worn = True
            raise


class Once(InProcess):
    """Can be closed once only."""

    closed = False

    def close(self):
        assert not self.closed, "it is closed"
        self.closed = True


class Leaving(InProcess):
    """Leaves a process behind."""

    def __init__(self, trainer):
        super().__init__(trainer)
        multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,), daemon=True).start()


@part
class Faulty(ExecutorPart):
    """Opens an executor that breaks a promise.

    Attributes:
        fault: the name of its class.
    """

    fault: str

    def open(self, work):
        return globals()[self.fault](work.trainer)


@part
class Holding(ExecutorPart):
    """Holds what cannot be pickled.

    Attributes:
        held: a function.
    """

    held: object = field(default=None)

    def __post_init__(self):
        object.__setattr__(self, "held", lambda: 0)

    def open(self, work):
        return InProcess(work.trainer)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("Backwards", "round 1.*lane 0: the results do not come in the order of the lanes"),
        ("Short", "round 1.*: 3 lanes gave 2 results"),
        ("Long", "round 1.*: there are more results than lanes"),
        ("Rounding", "round 1.*lane 0: the vectors have other bits"),
        ("Stale", "round 2.*lane 0: the vectors have other bits"),
        ("Meddling", "the executor changed the global vectors"),
        ("Hasty", "round 1, .*lane 0, a little later: the vectors have other bits"),
        ("Forgetful", "lane 0: the reports' memory are not those"),
        ("Blank", "lane 0: the reports' clients are not those"),
        ("Bare", "the result is of type tuple"),
        ("Greedy", "no lanes: the executor raised IndexError"),
        ("Busy", "after a round broken off: the executor raised RuntimeError: 'it is still at work'"),
        ("Wrapping", "a client that fails: expected its ClientError; the executor raised RuntimeError"),
        ("Blaming", "a client that fails: the error is .*, 0, 5, .* in the run's own process .*, 7, 5, "),
        ("Silent", "a client that fails: the round ended without an error"),
        ("Worn", "after a round in which a client failed: the executor raised AssertionError"),
        ("Once", "a second close: the executor raised AssertionError"),
        ("Leaving", "close left processes behind"),
    ],
)
def test_an_executor_that_breaks_a_promise_is_caught(fault, message):
    try:
        with pytest.raises(ConformanceError, match=message):
            check_executor(Faulty(fault))
    finally:
        for process in multiprocessing.active_children():
            process.kill()
            process.join()


def test_an_executor_that_no_other_process_finds_is_caught():
    with pytest.raises(ConformanceError, match="it cannot be pickled"):
        check_executor(Holding())
