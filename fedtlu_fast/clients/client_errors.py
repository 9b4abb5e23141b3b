"""Handles clients that fail in a round or in the tests, by the setting ``execution.client_errors``."""

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
    """Raises a KeyboardInterrupt again, because no client has caused it.

    A client's data may cause any other error, also one that is not an `Exception`, such as a panic of a
    library that is written in Rust.
    """
    if isinstance(error, KeyboardInterrupt):
        raise error


@contextmanager
def left_to_the_round() -> Iterator[None]:
    """Ignores errors of a client's data inside the context, which its round will report, but no Ctrl-C."""
    try:
        yield
    except BaseException as error:
        check_interrupt(error)


def check_memory(error: BaseException, training: str) -> None:
    """Raises an error if memory ran out or the user pressed Ctrl-C, because no client has caused these.

    Args:
        error: the error that was raised.
        training: the client that was trained or tested, for the message.

    Raises:
        WorkerError: memory ran out.
    """
    check_interrupt(error)
    if is_out_of_memory(error):
        raise WorkerError(f"out of memory while training {training}: {LESS_MEMORY}") from error


def reason_of(
    client: int, round_index: int, error: BaseException, policy: Literal["stop", "drop"], done: bool = False
) -> str:
    """Returns the reason why a client is left out.

    Args:
        client: the client's number.
        round_index: see `ClientError`.
        error: the error that its training or test raised.
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
    """Handles errors in the tests and last trainings of clients in the same way as in the rounds.

    Attributes:
        left_out: the clients that were left out, each with the reason.
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
        """Treats an error inside the context as this client's.

        Raises:
            ClientError: see `reason_of`.
            WorkerError: see `reason_of`.
        """
        try:
            yield
        except BaseException as error:
            self.leave_out(client, reason_of(client, self._round, error, self._policy, self._done))

    def leave_out(self, client: int, reason: str) -> None:
        """Records a client as left out, and warns of the first one."""
        if not self.left_out:
            logger.warning(
                "client %d is left out of the tests after round %d (%s); failed_tests in the logs and the "
                "summary names all",
                client,
                self._round,
                reason,
            )
        self.left_out[client] = reason
