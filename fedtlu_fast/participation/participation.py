"""The settings of participation as one value: sampler, availability, over-selection and dropout."""

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
    """Says which clients take part in a round.

    The available clients can be drawn, the sampler draws some of them, and drawn clients may drop out.
    Over-selection follows Bonawitz et al. (arXiv 1902.01046): the server draws more clients than it needs and
    goes on without the last ones to answer.

    Attributes:
        sampler: draws the clients of a round.
        availability: says which clients can be drawn; None: all clients.
        over_selection: the number of drawn clients divided by the size of the cohort, 1 or more. The cohort
            consists of the clients that answer first.
        dropout: probability that a drawn client does not answer, in [0, 1).
    """

    sampler: Annotated[Sampler, BeforeValidator(by_name("sampler"))] = Uniform()
    availability: Availability | None = None
    over_selection: Annotated[float, Field(ge=1)] = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def drawn(self, cohort: int) -> int:
        """Returns the number of clients that are drawn for a cohort of this size."""
        # Exact decimal arithmetic: 1.1 times 10 is 11, but the float product is above 11.
        return ceil(Fraction(str(self.over_selection)) * cohort)

    def check(self, clients: int, cohort: int) -> None:
        """Checks that the parameters fit a federation.

        Args:
            clients: number of clients.
            cohort: number of clients that train in a round.

        Raises:
            InputError: they do not fit. The error's field is the name of a parameter of this part or the
                sampler.
        """
        drawn = self.drawn(cohort)
        if drawn > clients:
            given = f"{self.over_selection} times a cohort of {cohort}"
            raise InputError("over_selection", given, f"at most {clients}, the clients there are")
        if drawn > cohort and self.sampler.most(clients, cohort) > cohort:
            name = spelled("sampler", type(self.sampler))
            expected = f"1 with the sampler {name}, whose cohorts have no size that would be full"
            raise InputError("over_selection", self.over_selection, expected)
        self.sampler.check(clients, drawn)

    def begin(self, seed: int, clients: int, cohort: int, rounds: int, population: Population) -> Turnout:
        """Returns the object that draws the participants of every round of a run.

        Args:
            seed: the run's seed.
            clients: number of clients.
            cohort: number of clients that train in a round.
            rounds: number of rounds.
            population: the clients, whose sizes are read if the sampler needs them.

        Raises:
            InputError: the population does not know its sizes, or the trace cannot be used.
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
