"""Settings: which blocks of the aggregated change are applied."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, field_validator, model_validator

from fedtlu_fast.config.parts_section import Chooser, PartsSection, Unfound
from fedtlu_fast.layout.blocks import Granularity
from fedtlu_fast.registry import find
from fedtlu_fast.selection import FedTLU, FunctionSelector, Selector, Ungrouped


class SelectionConfig(PartsSection):
    """Which blocks of the aggregated change are applied."""

    selector: Annotated[Selector, Chooser("selector", function=FunctionSelector, base=Selector)] = Field(
        FedTLU(), description="fedtlu | random | last | first | full | package.module:Name"
    )
    keep: int | float | dict[str, int | float] = Field(
        2,
        description="blocks kept per group: 2, a fraction 0.5, or {group: either}",
    )
    granularity: Granularity = Field("block", description="what is chosen: tensor | module | block")
    blocks: tuple[str, ...] = Field(
        (),
        description="patterns of modules that are blocks where the rules do not see them, such as down.*; "
        "every pattern is a group",
    )
    ungrouped: Ungrouped = Field(
        "always", description="blocks without a like (embeddings, head): always | never updated"
    )

    @field_validator("keep", mode="before")
    @classmethod
    def _some_blocks(cls, value: Any) -> Any:
        # 1 and 1.0 differ here (one block, the whole group), and nothing else may become either.
        named = value if isinstance(value, Mapping) else {"": value}
        for name, number in named.items():
            whole = isinstance(number, int) and not isinstance(number, bool) and number >= 1
            share = isinstance(number, float) and 0 < number <= 1
            if not isinstance(name, str) or not (whole or share):
                raise ValueError("1 block or more, a fraction in (0, 1], or {group: either} for every group")
        return value

    def parts(self) -> Iterator[Any]:
        """See `Section`; the metrics that the selector needs by their dotted names are parts too."""
        yield from super().parts()
        if not isinstance(self.selector, Unfound):
            yield from (find("metric", name, "selector") for name in self.selector.metrics)

    @model_validator(mode="after")
    def _needs_exist(self) -> Self:
        if not isinstance(self.selector, Unfound):
            self.selector.asked()
        return self
