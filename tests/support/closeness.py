"""Tolerances for two trainings of one client that add up in different orders."""

import torch

from fedtlu_fast.clients.optimizer import AdamW

TOLERANCE = {"rtol": 2e-5, "atol": 2e-6}
"""Tolerance of a few dozen rounding errors of float32."""
ADAMW = {"rtol": 2e-4, "atol": 2e-5}
"""Tolerance with AdamW, which divides by the size of the gradient and so enlarges errors of small ones."""


def assert_near(found, expected, config, steps):
    """Checks that parameters [P] are close after so many steps under a Local.

    If a gradient is no larger than its rounding error, AdamW takes a whole step in a random direction. Two
    numbers in a thousand may therefore differ by the length of such steps.
    """
    if not isinstance(config.optimizer, AdamW):
        torch.testing.assert_close(found, expected, **TOLERANCE)
        return
    off = ~torch.isclose(found, expected, **ADAMW)
    assert int(off.sum()) <= max(2, len(found) // 500), f"{int(off.sum())} of {len(found)} are off"
    assert float((found - expected).abs().max()) <= 2.1 * config.optimizer.lr * steps
