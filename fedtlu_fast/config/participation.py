"""Defines the settings of participation: which clients take part in a round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from fedtlu_fast.config.chooser import Chooser
from fedtlu_fast.config.parts_section import PartsSection
from fedtlu_fast.errors import InputError
from fedtlu_fast.participation import (
    Availability,
    Duty,
    Participation,
    Sampler,
    Trace,
    Uniform,
)


class ParticipationConfig(PartsSection):
    """Says which clients take part in a round: which are available, are drawn, and drop out."""

    sampler: Annotated[Sampler, Chooser("sampler", base=Sampler)] = Field(
        Uniform(),
        description="how the cohort is drawn: uniform | poisson (every client by a draw of its own, so that "
        "the cohort is a mean) | size (in proportion to the clients' samples) | loss "
        "(the candidates with the largest last training loss) | fixed (the same clients in every round) | "
        "package.module:Name",
    )
    trace: str | None = Field(
        None,
        description="file (.csv or .json) with the rounds in which each client is available; null: clients "
        "are always available",
    )
    duty: float = Field(
        1.0, gt=0, le=1, description="share of each period in which a client is available; 1: always"
    )
    period: int = Field(
        10,
        ge=1,
        description="rounds of a period, with duty below 1; periods of different clients are shifted",
    )
    over_selection: float = Field(
        1.0,
        ge=1,
        description="factor by which more clients than the cohort are drawn; those that answer after the "
        "cohort is full are left out",
    )
    dropout: float = Field(
        0.0, ge=0, lt=1, description="probability that a client that was drawn does not answer"
    )

    renamed: ClassVar[Mapping[str, str]] = {"over": "over_selection"}

    @property
    def value(self) -> Participation:
        """Returns the `Participation` that these settings describe."""
        return Participation(
            sampler=self.sampler,
            availability=self._availability,
            over_selection=self.over_selection,
            dropout=self.dropout,
        )

    @property
    def _availability(self) -> Availability | None:
        if self.trace is not None:
            return Trace(self.trace)
        return Duty(self.duty, self.period) if self.duty < 1 else None

    @model_validator(mode="after")
    def _one_availability(self) -> Self:
        chosen = "duty=1" if self.trace is None else "trace"
        unused = {"period": 10} if self.trace is None else {"duty": 1.0, "period": 10}
        for name, default in unused.items():
            if (self.trace is not None or self.duty == 1) and getattr(self, name) != default:
                expected = f"no value with {chosen}, which does not use it"
                raise InputError(name, getattr(self, name), expected, "Leave it out.")
        try:
            self._availability  # noqa: B018 (making it checks its arguments)
        except InputError as error:
            raise error.of({"share": "duty"}.get(error.field, error.field)) from None
        return self
