"""The clients' budgets: pure functions of the settings, the seed and the client's number.

A budget is the client's for the whole run, whoever else is asked about; a cohort costs some microseconds a
client, however many clients the federation has.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import erf, nextafter, sqrt
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtlu_fast.config.budget import BudgetConfig
from fedtlu_fast.randomness import Draws

Amounts = NDArray[Any]
"""int64 for layers, float64 for shares."""


def client_budgets(config: BudgetConfig, clients: int, seed: int) -> Amounts:
    """The budgets of clients 0 to `clients` - 1; see `budgets_of`."""
    return budgets_of(config, seed, range(clients))


def budgets_of(config: BudgetConfig, seed: int, clients: Sequence[int] | NDArray[np.int64]) -> Amounts:
    """The budgets of some clients.

    equal: `amount`. list: the values in turn, by the client's number. uniform: low to high, each as likely.
    half_normal: low + |x|, x normal with standard deviation `scale` (half the range where none is given; the
    paper states none), truncated at high; of layers, the whole part, so that a budget of low + j has the
    chance of |x| between j and j + 1, for j up to high - low. classes: each client is of a class by a chance
    of its share, so that the shares are met on average, not to the client.

    Args:
        config: what to draw.
        seed: of the run.
        clients: their numbers.

    Returns:
        In the order of the clients: int64 for layers, else float64, shares in (0, 1].
    """
    dtype = np.int64 if config.unit == "layers" else np.float64
    numbers = np.asarray(clients, dtype=np.int64)
    if config.kind == "equal":
        return np.full(len(numbers), config.amount, dtype=dtype)
    if config.kind == "list":
        return np.array(config.values, dtype=dtype)[numbers % len(config.values)]
    draws = Draws()
    chances = np.array([draws.generator(seed, "budget", client=int(client)).random() for client in numbers])
    if config.kind == "classes":
        ends = np.cumsum([device.share for device in config.classes.values()])
        amounts = np.array([device.amount for device in config.classes.values()], dtype=dtype)
        # The last class ends at 1, whatever rounding made of the sum.
        return amounts[np.searchsorted(ends[:-1], chances, side="right")]
    layers = config.unit == "layers"
    # Whole budgets have as many values, shares a range.
    width = config.high - config.low + (1 if layers else 0)
    above = width * chances if config.kind == "uniform" else _half_normal(chances, width, config.scale)
    found = config.low + (np.floor(above) if layers else above)
    return np.minimum(found, config.high).astype(dtype)


def _half_normal(chances: NDArray[np.float64], width: float, scale: float | None) -> NDArray[np.float64]:
    """|x| of a normal x with this standard deviation, given |x| < width: the inverse of its distribution."""
    if not width:
        return np.zeros(len(chances))
    scale = width / 2 if scale is None else scale
    within = erf(width / scale / sqrt(2))
    normal = NormalDist(sigma=scale)
    below = np.minimum(0.5 + 0.5 * within * chances, nextafter(1, 0))
    return np.array([normal.inv_cdf(chance) for chance in below.tolist()])
