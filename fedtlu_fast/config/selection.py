"""Defines the settings of selection: which blocks of the aggregated change the server applies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from fedtlu_fast.config.chooser import Chooser, Unfound
from fedtlu_fast.config.parts_section import PartsSection
from fedtlu_fast.layout.blocks import Granularity
from fedtlu_fast.registry import find
from fedtlu_fast.selection import FedTLU, FunctionSelector, Selector, Unique


class SelectionConfig(PartsSection):
    """Says which blocks of the aggregated change the server applies."""

    selector: Annotated[Selector, Chooser("selector", function=FunctionSelector, base=Selector)] = Field(
        FedTLU(),
        description="how the server chooses blocks: fedtlu (the best by selection.metric) | random | last "
        "(nearest the output) | first (nearest the input) | always (the same, from selection.position on) | "
        "full (all blocks) | smoothed, coverage (by selection.metric over several rounds) | oracle (by the "
        "loss on evaluation.held_out samples) | package.module:Name",
    )
    keep: int | float | dict[str, int | float] = Field(
        2,
        description="blocks that are chosen in each group: a number such as 2, a fraction such as 0.5, or a "
        "mapping from groups to such values",
    )
    granularity: Granularity = Field(
        "block",
        description="what counts as one block: tensor | module | block (a repeated part of the model, such "
        "as a Transformer layer)",
    )
    blocks: tuple[str, ...] = Field(
        (),
        description="patterns of modules, such as down.*, that are blocks although they are not found "
        "automatically; every pattern is a group",
    )
    unique: Unique = Field(
        "always",
        description="whether unique blocks (embeddings, head), which are in no group, are updated: always | "
        "never",
    )

    renamed: ClassVar[Mapping[str, str]] = {"ungrouped": "unique"}

    @field_validator("keep", mode="before")
    @classmethod
    def _some_blocks(cls, value: Any) -> Any:
        # 1 means one block and 1.0 the whole group, so pydantic must not convert one to the other.
        named = value if isinstance(value, Mapping) else {"": value}
        for name, number in named.items():
            whole = isinstance(number, int) and not isinstance(number, bool) and number >= 1
            share = isinstance(number, float) and 0 < number <= 1
            if not isinstance(name, str) or not (whole or share):
                raise ValueError(
                    "1 block or more, a fraction in (0, 1], or a mapping from groups to such values"
                )
        return value

    def parts(self) -> Iterator[Any]:
        """Yields all parts, and the metrics that the selector asks for by a dotted name."""
        yield from super().parts()
        if not isinstance(self.selector, Unfound):
            yield from (find("metric", name, "selector") for name in self.selector.metrics)

    @model_validator(mode="after")
    def _needs_exist(self) -> Self:
        if not isinstance(self.selector, Unfound):
            self.selector.asked()
        return self
