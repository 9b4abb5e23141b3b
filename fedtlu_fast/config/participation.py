"""Settings: who takes part in a round."""

from __future__ import annotations

from fractions import Fraction
from math import ceil
from typing import Annotated, Literal, Self

from pydantic import (
    Field,
    model_validator,
)

from fedtlu_fast.config.section import Section, check_unused
from fedtlu_fast.errors import InputError


class ParticipationConfig(Section):
    """Who takes part in a round: who can, who is drawn, and who drops out again."""

    sampler: Literal["uniform", "size", "loss", "fixed"] = Field(
        "uniform",
        description="uniform | size (by samples held) | loss (of candidates those with the largest last "
        "training loss) | fixed (the same in every round)",
    )
    candidates: int | None = Field(
        None, ge=1, description="loss: clients drawn by size, of which the cohort is; null: twice the cohort"
    )
    members: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(
        None, description="fixed: the clients' numbers; null: drawn once"
    )
    trace: str | None = Field(
        None, description="file of the rounds in which clients can take part (.csv or .json); null: all can"
    )
    duty: float = Field(1.0, gt=0, le=1, description="share of a period in which a client can take part")
    period: int = Field(10, ge=1, description="duty: rounds of a period; each client begins its own")
    over: float = Field(
        1.0, ge=1, description="draw this times the cohort, and keep as many as the cohort that answer first"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="chance that a client that was drawn does not answer")

    def drawn(self, cohort: int) -> int:
        """How many clients are drawn for a cohort."""
        # The factor as it is written: 1.1 times 10 is 11, though the float product is more.
        return ceil(Fraction(str(self.over)) * cohort)

    @model_validator(mode="after")
    def _only_what_it_uses(self) -> Self:
        used = {"sampler", "trace", "duty", "period", "over", "dropout"}
        check_unused(
            self,
            used | {"loss": {"candidates"}, "fixed": {"members"}}.get(self.sampler, set()),
            f"sampler={self.sampler}",
        )
        if self.trace is not None or self.duty == 1:
            check_unused(
                self, set(type(self).model_fields) - {"duty", "period"}, "trace" if self.trace else "duty=1"
            )
        if round(self.duty * self.period) < 1:
            raise InputError("duty", self.duty, f"at least one round of the {self.period} of a period")
        if len(set(self.members or ())) < len(self.members or ()):
            raise InputError("members", self.members, "each client once")
        return self
