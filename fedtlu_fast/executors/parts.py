"""The executors of this package as parts: a name in settings, and their parameters."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated

from pydantic import Field

from fedtlu_fast.errors import InputError
from fedtlu_fast.executors.crew import Policy
from fedtlu_fast.executors.executor import Executor, ExecutorPart, LaneWork
from fedtlu_fast.executors.in_process import InProcess
from fedtlu_fast.executors.processes import ForkedExecutor, why_not
from fedtlu_fast.machine import cores
from fedtlu_fast.parts import part
from fedtlu_fast.registry import spelled

RETRIES = 3
"""The default number of retries."""

Workers = Annotated[int | None, Field(ge=1, le=4096)]
ClientSeconds = Annotated[float | None, Field(gt=0)]
Retries = Annotated[int, Field(ge=0)]


@part
class OneProcess(ExecutorPart):
    """Trains in the process of the run.

    Attributes:
        client_seconds: always null, because a process cannot stop a client of its own.
        retries: how often a comparison replaces stopped processes of its arms, before it ends.
    """

    client_seconds: ClientSeconds = field(default=None, kw_only=True)
    retries: Retries = field(default=RETRIES, kw_only=True)

    def __post_init__(self) -> None:
        if self.client_seconds is not None:
            expected = (
                f"null with executor={spelled('executor', type(self))}: this process cannot stop a client of "
                f"its own"
            )
            raise InputError("client_seconds", self.client_seconds, expected, "Use processes or ray.")

    def open(self, work: LaneWork) -> Executor:
        """See `ExecutorPart`."""
        return InProcess(work.trainer)


@part
class Serial(OneProcess):
    """Trains one client after another."""


@part
class Vectorized(OneProcess):
    """Trains many clients at once (`torch.func`), as many as fit."""


class OtherProcesses(ExecutorPart):
    """Trains in worker processes.

    Attributes:
        workers: the number of worker processes; null: one per core.
        client_seconds: a client whose data, probe or training take longer in a round has failed (n clients
            trained at once have n times as long), and a worker that is silent, or a process of compare that
            is stopped, for longer is replaced; tests and the trainings after the last round are the run's own
            and have no limit; null: no limit.
        retries: how often a lane that lost its worker is trained again, and how often compare replaces
            stopped processes, before the run stops.
    """

    workers: Workers
    client_seconds: ClientSeconds
    retries: Retries

    def workers_for(self, cohort: int) -> int:
        """See `ExecutorPart`."""
        return min(self.workers or cores(), cohort)

    def policy(self, work: LaneWork) -> Policy:
        """Returns what these parameters and the settings say of lost workers and of slow clients."""
        return Policy(self.retries, self.client_seconds, work.client_errors)


@part
class Auto(OtherProcesses):
    """Measures, when a run is built, whether other processes are worth their start; see `build.executor`."""

    workers: Workers = None
    client_seconds: ClientSeconds = None
    retries: Retries = RETRIES

    def open(self, work: LaneWork) -> Executor:
        """See `ExecutorPart`."""
        raise RuntimeError("auto has to be settled before a run begins: see build.executor.choose")


@part
class Processes(OtherProcesses):
    """Trains in worker processes on this machine that are forked from the run's."""

    workers: Workers = None
    client_seconds: ClientSeconds = None
    retries: Retries = RETRIES

    def check(self, device: str, threads: int | None) -> None:
        """See `ExecutorPart`."""
        reason = why_not(device, threads)
        if reason is not None:
            raise InputError("executor", "processes", f"another here: {reason}")

    def open(self, work: LaneWork) -> Executor:
        """See `ExecutorPart`."""
        return ForkedExecutor(work.trainer, self.workers_for(work.cohort), self.policy(work))


@part
class Ray(OtherProcesses):
    """Trains in Ray actors, on this machine or on a cluster.

    Attributes:
        address: host:port of a running cluster, auto for the cluster of this machine, or empty to start Ray.
    """

    address: str = ""
    workers: Workers = None
    client_seconds: ClientSeconds = None
    retries: Retries = RETRIES

    def check(self, device: str, threads: int | None) -> None:
        """See `ExecutorPart`."""
        if threads not in (1, None):
            expected = "1 with executor=ray: each worker uses one"
            raise InputError("threads", threads, expected, "Set execution.workers.")

    def open(self, work: LaneWork) -> Executor:
        """See `ExecutorPart`."""
        # Imported late: Ray is an extra.
        from fedtlu_fast.executors.ray import RayExecutor

        return RayExecutor(work, self.policy(work), self.workers, self.address)
