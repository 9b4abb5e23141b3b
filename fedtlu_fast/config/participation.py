"""Settings: who takes part in a round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Self

from pydantic import Field, model_validator

from fedtlu_fast.config.parts_section import Chooser, PartsSection
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
    """Who takes part in a round: who can, who is drawn, and who drops out again."""

    sampler: Annotated[Sampler, Chooser("sampler", base=Sampler)] = Field(
        Uniform(),
        description="uniform | size (by samples held) | loss (of candidates those with the largest last "
        "training loss) | fixed (the same in every round) | package.module:Name",
    )
    trace: str | None = Field(
        None, description="file of the rounds in which clients can take part (.csv or .json); null: all can"
    )
    duty: float = Field(1.0, gt=0, le=1, description="share of a period in which a client can take part")
    period: int = Field(10, ge=1, description="duty: rounds of a period; each client begins its own")
    over_selection: float = Field(
        1.0, ge=1, description="draw this times the cohort, and keep as many as the cohort that answer first"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="chance that a client that was drawn does not answer")

    renamed: ClassVar[Mapping[str, str]] = {"over": "over_selection"}

    @property
    def value(self) -> Participation:
        """What these settings describe."""
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
                expected = f"{default} with {chosen}, which does not use it"
                raise InputError(name, getattr(self, name), expected, "Leave it out.")
        try:
            self._availability  # noqa: B018 (its checks are wanted)
        except InputError as error:
            raise error.of({"share": "duty"}.get(error.field, error.field)) from None
        return self
