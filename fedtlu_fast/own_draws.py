"""Seeds the global random generators for the user's own parts, which may draw from them.

Parts of this package draw from generators that they make (`randomness.generator`). A part of the user's may
call `torch.randn_like` or `random.sample`. Without a seed its draws would differ between two runs of one
seed, between executors, and after a resume, and no error would say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fedtlu_fast.own_errors import is_ours
from fedtlu_fast.randomness import torch_seeded
from fedtlu_fast.registry import NAMES


@contextmanager
def seeded_for(
    part: object,
    seed: int,
    purpose: str,
    round_index: int = 0,
    client: int = 0,
    metrics: Iterable[str] = (),
) -> Iterator[None]:
    """Makes the global generators a function of the arguments while code of a user's part runs.

    Their states are restored afterwards (see `torch_seeded`). For a part of this package nothing is done,
    unless it only calls a function of the user's, which its attribute `function` holds.

    Args:
        part: the part.
        seed: the run's seed.
        purpose: a name that separates these draws from others.
        round_index: the round, from 1.
        client: the client's number.
        metrics: the names of the metrics that are computed for the part; some may be the user's.
    """
    if is_ours(getattr(part, "function", part)) and NAMES["metric"].keys() >= set(metrics):
        yield
        return
    with torch_seeded(seed, purpose, round_index, client):
        yield
