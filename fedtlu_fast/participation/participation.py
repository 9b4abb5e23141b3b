"""Who takes part in a federation, as a value."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Annotated

import numpy as np
from pydantic import BeforeValidator, Field

from fedtlu_fast.data.population import Indices, Population, sizes_of
from fedtlu_fast.errors import InputError
from fedtlu_fast.participation.availability import Availability
from fedtlu_fast.participation.samplers import Sampler, Uniform
from fedtlu_fast.participation.turnout import Turnout
from fedtlu_fast.parts import by_name, part
from fedtlu_fast.registry import spelled


@part
class Participation:
    """Who takes part in a round: who can, who is drawn, and who drops out again.

    Over-selection is after Bonawitz et al. (arXiv 1902.01046): the server draws more clients than it needs
    and goes on without the last ones.

    Attributes:
        sampler: draws clients.
        availability: which clients can be drawn; None: all of them.
        over_selection: this times the cohort is drawn, of which as many as the cohort that answer first
            train.
        dropout: chance that a client that was drawn does not answer.
    """

    sampler: Annotated[Sampler, BeforeValidator(by_name("sampler"))] = Uniform()
    availability: Availability | None = None
    over_selection: Annotated[float, Field(ge=1)] = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def drawn(self, cohort: int) -> int:
        """How many clients are drawn for a cohort."""
        # The factor as it is written: 1.1 times 10 is 11, though the float product is more.
        return ceil(Fraction(str(self.over_selection)) * cohort)

    def check(self, clients: int, cohort: int) -> None:
        """Refuses a federation for which the parameters make no sense.

        Raises:
            InputError: its field is the name of a parameter, of this part or of the sampler.
        """
        drawn = self.drawn(cohort)
        if drawn > clients:
            given = f"{self.over_selection} times a cohort of {cohort}"
            raise InputError("over_selection", given, f"at most {clients}, the clients there are")
        self.sampler.check(clients, drawn)

    def begin(self, seed: int, clients: int, cohort: int, rounds: int, population: Population) -> Turnout:
        """What draws the participants of every round.

        Args:
            seed: of the run.
            clients: how many there are.
            cohort: how many train in a round.
            rounds: of the run.
            population: is asked for all sizes if the sampler needs them, and for nothing else.

        Raises:
            InputError: the population cannot tell sizes, or the trace cannot be used.
        """
        schedule = None
        if self.availability is not None:
            schedule = self.availability.schedule(seed, clients, rounds)
        sizes = self._sizes(clients, population) if self.sampler.needs_sizes else None
        drawn = self.drawn(cohort)
        return Turnout(seed, clients, cohort, drawn, self.dropout, self.sampler, schedule, sizes)

    def _sizes(self, clients: int, population: Population) -> Indices:
        name = spelled("sampler", type(self.sampler))
        sizes = sizes_of(population, name)[:clients]
        if (sizes < 0).any():
            client = int(np.argmin(sizes))
            expected = f"clients that hold something; client {client} holds {sizes[client]}"
            raise InputError("participation.sampler", name, expected)
        return sizes
