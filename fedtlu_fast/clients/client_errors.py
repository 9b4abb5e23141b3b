"""What becomes of a client that fails (``execution.client_errors``): in a round, and in the tests."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from fedtlu_fast.errors import LESS_MEMORY, ClientError, WorkerError, cause
from fedtlu_fast.memory import is_out_of_memory

logger = logging.getLogger("fedtlu_fast")


def check_interrupt(error: BaseException) -> None:
    """Raises a Ctrl-C again: that is no client's fault.

    Everything else may come from a client's data, also what is no `Exception`, such as the panics of
    libraries that are written in Rust.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error


@contextmanager
def left_to_the_round() -> Iterator[None]:
    """Inside, whatever a client's data raise is passed over: its round deals with it. A Ctrl-C is not."""
    try:
        yield
    except BaseException as error:
        check_interrupt(error)


def check_memory(error: BaseException, training: str) -> None:
    """Raises when memory ran out, or at a Ctrl-C: neither is a client's fault.

    Args:
        error: what was raised.
        training: who was trained or tested, for the message.

    Raises:
        WorkerError: it did.
    """
    check_interrupt(error)
    if is_out_of_memory(error):
        raise WorkerError(f"out of memory while training {training}: {LESS_MEMORY}") from error


def reason_of(
    client: int, round_index: int, error: BaseException, policy: Literal["stop", "drop"], done: bool = False
) -> str:
    """Why a client is left out.

    Args:
        client: its number.
        round_index: see `ClientError`.
        error: what its training or test raised.
        policy: ``execution.client_errors``.
        done: see `ClientError`.

    Raises:
        ClientError: the policy is to stop.
        WorkerError: memory ran out.
    """
    check_memory(error, f"client {client}")
    reason = cause(error)
    if policy == "stop":
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{reason} ({where.filename}:{where.lineno})"
        raise ClientError(client, round_index, place, done) from error
    return reason


class ClientTests:
    """Lets tests and last trainings of clients fail as the rounds let their training fail.

    Attributes:
        left_out: clients that were left out, and why.
    """

    def __init__(self, policy: Literal["stop", "drop"], round_index: int, done: bool = False) -> None:
        """Begins with no failure.

        Args:
            policy: ``execution.client_errors``.
            round_index: see `ClientError`.
            done: see `ClientError`.
        """
        self._policy, self._round, self._done = policy, round_index, done
        self.left_out: dict[int, str] = {}

    @contextmanager
    def of(self, client: int) -> Iterator[None]:
        """What raises inside is this client's fault.

        Raises:
            ClientError: see `reason_of`.
            WorkerError: likewise.
        """
        try:
            yield
        except BaseException as error:
            self.leave_out(client, reason_of(client, self._round, error, self._policy, self._done))

    def leave_out(self, client: int, reason: str) -> None:
        """Counts a client as left out; of the first one it warns."""
        if not self.left_out:
            logger.warning(
                "client %d is left out of the tests after round %d (%s); failed_tests in the logs and the "
                "summary names all",
                client,
                self._round,
                reason,
            )
        self.left_out[client] = reason
