"""Tests signals that ask a run to stop."""

import os
import signal
from contextlib import suppress

import pytest

from fedtlu_fast.stopping import (
    Terminated,
    check_interrupt_was_not_lost,
    signals_interrupt,
    stop_on_signals,
)


@pytest.mark.parametrize(
    ("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, Terminated)]
)
def test_an_interrupt_that_a_library_swallows_is_raised_before_the_rounds(
    number: signal.Signals, raised: type[BaseException]
) -> None:
    with signals_interrupt():
        with suppress(KeyboardInterrupt):  # as an import does that tries one thing after another
            os.kill(os.getpid(), number)
        with pytest.raises(raised), stop_on_signals(lambda name: None):
            pytest.fail("the rounds would begin")
    with signals_interrupt():
        check_interrupt_was_not_lost()
