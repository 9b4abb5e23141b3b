"""Uniform draws of clients."""

from __future__ import annotations

from fedtlu_fast.randomness import generator


def sample_cohort(seed: int, round_index: int, clients: int, size: int) -> list[int]:
    """Draws `size` different clients uniformly, in the order in which they are averaged."""
    return draw_clients(seed, "cohort", round_index, clients, size)


def draw_clients(seed: int, purpose: str, round_index: int, clients: int, size: int) -> list[int]:
    """Draws `size` different clients uniformly; draws of different purposes are independent."""
    drawn = generator(seed, purpose, round_index).choice(clients, size=size, replace=False)
    return [int(client) for client in drawn]
