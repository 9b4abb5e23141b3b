"""Settings: which blocks each client trains or sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fedtlu_fast.config.budget import BudgetConfig
from fedtlu_fast.config.parts_section import Chooser, PartsSection, Unfound
from fedtlu_fast.config.section import check_unused
from fedtlu_fast.errors import InputError
from fedtlu_fast.registry import find
from fedtlu_fast.scoring.gradient_metrics import check_metrics
from fedtlu_fast.selection import FunctionSelector, Selector, Unrestricted
from fedtlu_fast.selection.budgets import Equal


def settings_beside(selector: type[Selector]) -> set[str]:
    """The settings of `ClientSelectionConfig` that mean something beside selectors of this class."""
    used = {"selector"}
    if not issubclass(selector, Unrestricted):
        used |= {"frozen", "always", "only", "personal", "alternate", "decides"}
    return used | {"budget"} if selector.budgeted else used


CLIENT_SELECTOR = Chooser("client_selector", function=FunctionSelector, base=Selector)


class ClientSelectionConfig(PartsSection):
    """Which blocks each client trains or sends (arXiv 2408.15600 and its kin)."""

    selector: Annotated[Selector, CLIENT_SELECTOR] = Field(
        Unrestricted(),
        description="none (every client trains everything) | full (all but what is frozen) | random | top, "
        "bottom, both (output's side, input's, in turn) | gradnorm | rgn | snr (each client's own best) | "
        "strategic (P1: clients agree) | fedpart | fedlp | fedluar | drift | package.module:Name",
    )
    budget: BudgetConfig = BudgetConfig()
    decides: Literal["server", "client"] = Field(
        "server", description="who chooses: server (sees every client's numbers) | client (each alone)"
    )
    frozen: str | tuple[str, ...] = Field(
        "auto",
        description="blocks nobody trains: patterns | none | auto (embeddings, when a model is fine-tuned)",
    )
    always: str | tuple[str, ...] = Field(
        "auto", description="blocks every client trains: patterns | none | auto (final norm and head)"
    )
    only: tuple[str, ...] = Field((), description="patterns of the blocks that are trained at all; (): all")
    personal: str | tuple[str, ...] = Field(
        "none",
        description="blocks that each client trains and keeps after the warm-up (FedPer, FedBN), in memory 4 "
        "bytes a parameter and client: patterns | none | auto (final norm and head)",
    )
    alternate: bool = Field(
        False,
        description="FedRep: a client's training goes twice, first for its personal blocks, then the rest",
    )

    def parts(self) -> Iterator[Any]:
        """See `Section`; the metrics that the selector needs by their dotted names are parts too."""
        yield from super().parts()
        if not isinstance(self.selector, Unfound):
            yield from (find("client_metric", name, "selector") for name in self.selector.own_metrics)

    @model_validator(mode="after")
    def _only_what_it_uses(self) -> Self:
        if isinstance(self.selector, Unfound):
            return self
        selector, chosen = self.selector, f"selector={self.name_of('selector')}"
        check_unused(self, {*settings_beside(type(selector)), *self.choosers()}, chosen)
        check_metrics(selector.own_metrics, f"selector ({type(selector).__name__}.needs)")
        if self.decides == "client" and selector.needs_others is not None:
            raise InputError("decides", "client", f"server with {selector.needs_others}")
        if self.decides == "client" and selector.same_for_all:
            raise InputError("decides", "client", f"server with {chosen}: one choice for all")
        budget = self.budget.budget
        equal = isinstance(budget, Equal) and budget.unit == "layers"
        if selector.budgeted and selector.same_for_all and not equal:
            expected = f"the same number of blocks for all with {chosen}"
            raise InputError("budget", self.budget.name_of("kind"), expected)
        if self.alternate and not self.keeps:
            raise InputError("alternate", True, "false without personal blocks", "Name them in personal.")
        return self

    @property
    def chooses(self) -> bool:
        """Whether clients are restricted to some blocks."""
        return not isinstance(self.selector, Unrestricted)

    @property
    def keeps(self) -> bool:
        """Whether clients keep blocks for themselves."""
        return self.personal not in ("none", ())
