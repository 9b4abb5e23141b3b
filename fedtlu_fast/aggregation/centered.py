"""Centered clipping: the clients' distances from the last round's change are limited, and averaged.

Source: Karimireddy, He, Jaggi, "Learning from History for Byzantine Robust Optimization", arXiv 2012.10333,
Algorithm 2. The clients' stack takes 4 K P bytes, in memory or in a file (`Stack`).
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from fedtlu_fast.aggregation.clipping import clipping
from fedtlu_fast.aggregation.passes import distances_to, weighted_sum
from fedtlu_fast.aggregation.rule import Aggregated, Arrived, StackedRule
from fedtlu_fast.aggregation.stack import Spill
from fedtlu_fast.ops import dispatch
from fedtlu_fast.parts import part

CENTRE = "centre"
"""The name under which the last change is remembered."""


@part
class CenteredClipping(StackedRule):
    """The last round's change v plus the mean of the differences from it, each cut to a largest L2 norm.

    ``v + sum_k (d_k - v) min(1, clip / ||d_k - v||) / K`` for K changes d_k, repeated with the result as v.
    In the first round v is zero. Every client counts once, whatever its number of samples. However large a
    client's change is, it moves the result by no more than ``clip / K`` an iteration. The paper's clients
    send their momentum; ours send the change of several local steps.

    Attributes:
        clip: largest L2 norm of a difference; null: the median of the clients' norms (ours).
        iterations: number of iterations; each reads the cohort's vectors twice. 1 by default, as
            in the paper, and 3 for geometric_median.
        spill: directory for the cohort's vectors; null: in memory.
    """

    clip: Annotated[float | None, Field(gt=0)] = None
    iterations: Annotated[int, Field(ge=1)] = 1
    spill: Spill = None

    def finish(self, state: Arrived) -> Aggregated:
        """Returns the change, and remembers it for the next round; zeros if no client arrived."""
        stack, backend = state.stack, state.start.backend
        count = len(stack)
        if not count:
            return Aggregated(torch.zeros_like(stack.base))
        centre = state.start.memory.get(CENTRE)
        for _ in range(self.iterations):
            away = distances_to(stack, centre, backend)
            clip = float(np.median(away)) if self.clip is None else self.clip
            shares = [clipping(norm, clip) / count for norm in away.tolist()]
            moved = weighted_sum(stack, shares, backend)
            if centre is not None and len(centre):
                dispatch.accumulate_(moved, centre, None, 1 - sum(shares), backend)
            centre = moved
        if centre is None:
            raise AssertionError("there is at least one iteration")
        # A copy, because others may change the change.
        return Aggregated(centre, memory={CENTRE: centre.clone()})
