"""Adds a sampler that lets clients take part in turn."""

from fedtlu_fast.participation.samplers import Pool, Sampler
from fedtlu_fast.parts import part


@part
class Rotating(Sampler):
    """Draws the next clients in every round, and starts again with the first client after the last.

    Attributes:
        stride: distance between the first clients of two rounds; 0: the size of the cohort.
    """

    stride: int = 0

    def draw(self, pool: Pool, count: int) -> list[int]:
        """Returns the next available clients."""
        known = range(pool.clients) if pool.available is None else pool.available.tolist()
        first = (pool.round - 1) * (self.stride or count)
        return [known[(first + place) % len(known)] for place in range(min(count, len(known)))]
