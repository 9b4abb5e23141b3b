"""Defines the settings of secure aggregation: how changes become whole numbers, and who has to send."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from fedtlu_fast.config.section import Section


class MasksConfig(Section):
    """Holds the parameters of secure aggregation; see `secure.fixed_point`."""

    bits: Literal[32, 64] = Field(64, description="bits of each number that a client sends: 32 | 64")
    largest_change: float = Field(
        16.0, gt=0, le=2**20, description="clients cut larger numbers of their changes to this"
    )
    largest_weight: int = Field(
        2**20,
        ge=1,
        le=2**30,
        description="no client weighs more: usually the largest number of samples of a client; the smaller, "
        "the finer the steps of the numbers",
    )
    threshold: float = Field(
        2 / 3,
        ge=0.5,
        lt=1,
        description="more than this share of the clients that were drawn has to send, or the round changes "
        "nothing",
    )
