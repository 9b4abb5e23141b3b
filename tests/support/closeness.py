"""How near two trainings of one client have to end that add up in different orders."""

import torch

from fedtlu_fast.clients.optimizer import AdamW

TOLERANCE = {"rtol": 2e-5, "atol": 2e-6}
"""A few dozen roundings of float32."""
ADAMW = {"rtol": 2e-4, "atol": 2e-5}
"""AdamW divides by the size of the gradient, and so enlarges what rounding does to small ones."""


def assert_near(found, expected, config, steps):
    """Of parameters [P] after so many steps under a Local.

    Where a gradient is no larger than its own rounding, AdamW makes a whole step of that, in either
    direction: two numbers in a thousand may end as far apart as such steps carry them.
    """
    if not isinstance(config.optimizer, AdamW):
        torch.testing.assert_close(found, expected, **TOLERANCE)
        return
    off = ~torch.isclose(found, expected, **ADAMW)
    assert int(off.sum()) <= max(2, len(found) // 500), f"{int(off.sum())} of {len(found)} are off"
    assert float((found - expected).abs().max()) <= 2.1 * config.optimizer.lr * steps
