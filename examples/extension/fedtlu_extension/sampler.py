"""A sampler: clients take part in turn."""

from fedtlu_fast.participation.samplers import Pool, Sampler
from fedtlu_fast.parts import part


@part
class Rotating(Sampler):
    """Round after round the next clients, from the first to the last and on from the first.

    Attributes:
        stride: how far the first client of a round lies from the first of the round before; 0: a cohort.
    """

    stride: int = 0

    def draw(self, pool: Pool, count: int) -> list[int]:
        """The next clients of those that are available."""
        known = range(pool.clients) if pool.available is None else pool.available.tolist()
        first = (pool.round - 1) * (self.stride or count)
        return [known[(first + place) % len(known)] for place in range(min(count, len(known)))]
