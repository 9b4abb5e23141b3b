"""Cohorts of which some clients are hostile, for the bounds of scores."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support.client_changes import LAYOUT, SIZE, places_of

(GROUP,) = [list(group.blocks) for group in LAYOUT.groups if len(group.blocks) == 4]
GROUPED = [block for group in LAYOUT.groups for block in group.blocks]
NUMBERS = st.floats(width=32, allow_nan=False, allow_infinity=False)
FREE = arrays.arrays(np.float64, (4, SIZE), elements=NUMBERS, fill=NUMBERS)
"""Changes of four hostile clients, each number on its own or all alike."""


@st.composite
def cohorts(draw, agreed=False):
    """Changes of some clients followed by those of hostile ones, their weights, and how many are honest.

    Args:
        agreed: whether the honest clients agree on the order of the four like blocks, from the first up.
    """
    numbers = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    honest, hostile = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    rows = numbers.normal(0, 1, (honest, SIZE))
    if agreed:
        rows = np.sign(rows)
        for step, block in enumerate(GROUP):
            rows[:, places_of(LAYOUT.blocks[block].layers)] *= 1 + step
    attack = draw(FREE)[:hostile].copy()
    weights = numbers.integers(1, 9, honest + hostile).astype(float)
    for block in draw(st.sets(st.sampled_from(GROUPED))):  # these are cancelled, as far as rounding allows
        places = places_of(LAYOUT.blocks[block].layers)
        attack[:, places] = 0
        attack[0, places] = -(weights[:honest] @ rows[:, places]) / weights[honest]
    return np.concatenate([rows, attack]), weights, honest
