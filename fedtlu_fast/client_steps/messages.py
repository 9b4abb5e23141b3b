"""Counts the bytes of the messages in which clients send their parameters."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from fedtlu_fast.client_steps.halves import FIELD
from fedtlu_fast.client_steps.step import ClientStep, compresses
from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.own_errors import named_errors

MOST = 10_000
"""The number of counts that are kept; many clients send the same blocks."""


class MessageBytes:
    """Counts the bytes of messages, each kind of message once."""

    def __init__(self, steps: Sequence[ClientStep], layout: ParameterLayout) -> None:
        """Takes the steps of a run.

        Args:
            steps: the steps, in their order.
            layout: the model's layout.
        """
        self._steps, self._layout = steps, layout
        self._counted: dict[tuple[int | None, Blocks], int] = {}

    def of(self, places: Sequence[int], blocks: Blocks) -> int:
        """Returns the bytes in which a client sends the parameters of some blocks.

        Args:
            places: the places of the steps that the client takes, ascending.
            blocks: ascending indices of the blocks.

        Raises:
            InputError: a step returns something other than a whole number from 0 on.
        """
        last = next((place for place in reversed(places) if compresses(self._steps[place])), None)
        key = last, blocks
        if key not in self._counted:
            if len(self._counted) == MOST:
                self._counted.clear()
            self._counted[key] = self._count(ClientStep() if last is None else self._steps[last], blocks)
        return self._counted[key]

    def _count(self, step: ClientStep, blocks: Blocks) -> int:
        with named_errors(FIELD, step):
            found: Any = step.message_bytes(self._layout, blocks)
        if isinstance(found, bool) or not isinstance(found, Integral) or found < 0:
            raise InputError(f"{FIELD}.{step.name}: message_bytes()", found, "a whole number from 0 on")
        return int(found)
