"""Defines the settings of client selection: which blocks each client trains or sends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from fedtlu_fast.config.budget import BudgetConfig
from fedtlu_fast.config.chooser import Chooser, Unfound
from fedtlu_fast.config.parts_section import PartsSection
from fedtlu_fast.config.section import check_unused
from fedtlu_fast.errors import InputError
from fedtlu_fast.registry import find
from fedtlu_fast.scoring.block_metrics import OF_CLIENTS
from fedtlu_fast.scoring.gradient_metrics import check_metrics
from fedtlu_fast.selection import FunctionSelector, Selector, Unrestricted
from fedtlu_fast.selection.budgets import Equal
from fedtlu_fast.selection.calls import check_forgets


def settings_beside(selector: type[Selector]) -> set[str]:
    """Returns the settings of `ClientSelectionConfig` that selectors of this class use."""
    used = {"selector"}
    if not issubclass(selector, Unrestricted):
        used |= {"frozen", "always", "only", "personal", "alternate", "decides", "shared"}
    return used | {"budget"} if selector.budgeted else used


CLIENT_SELECTOR = Chooser("client_selector", function=FunctionSelector, base=Selector)


class ClientSelectionConfig(PartsSection):
    """Says which blocks each client trains or sends (arXiv 2408.15600 and related methods)."""

    selector: Annotated[Selector, CLIENT_SELECTOR] = Field(
        Unrestricted(),
        description="how the blocks of each client are chosen: none (every client trains all blocks) | full "
        "(all blocks that are not frozen) | random | top (nearest the output) | bottom (nearest the input) | "
        "both (top and bottom in turn) | gradnorm, rgn, snr (the best by the client's own gradients) | "
        "strategic (P1 of arXiv 2408.15600: clients agree) | agreeing (P1; lambda adapts) | earlier (the "
        "best in the changes of earlier rounds) | fedpart | fedlp | fedluar | drift | oracle (an upper "
        "bound: by the loss on evaluation.local_held_out samples) "
        "| package.module:Name",
    )
    budget: BudgetConfig = BudgetConfig()
    decides: Literal["server", "client"] = Field(
        "server",
        description="where blocks are chosen: server (with the numbers of all clients) | client (with its "
        "own numbers only)",
    )
    shared: bool = Field(
        False,
        description="whether one choice is made for all clients, such as one draw of random; for selectors "
        "that look at no client, and with the same number of blocks for all",
    )
    frozen: str | tuple[str, ...] = Field(
        "auto",
        description="blocks that no client trains: patterns | none | auto (the embeddings, if a pre-trained "
        "model is fine-tuned)",
    )
    always: str | tuple[str, ...] = Field(
        "auto", description="blocks that every client trains: patterns | none | auto (final norm and head)"
    )
    only: tuple[str, ...] = Field(
        (), description="patterns of blocks: all others are never trained; []: no such limit"
    )
    personal: str | tuple[str, ...] = Field(
        "none",
        description="blocks that each client keeps for itself after the warm-up (FedPer, FedBN): patterns | "
        "none | auto (final norm and head); they take 4 bytes of memory per parameter and client",
    )
    alternate: bool = Field(
        False,
        description="whether a client trains twice in a round, first its personal blocks, then the others "
        "(FedRep)",
    )

    def parts(self) -> Iterator[Any]:
        """Yields all parts, and the metrics that the selector asks for by a dotted name."""
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
        if selector.needs_samples and selector.moment != "by_change":
            expected = "one that chooses after training (moment by_change): kept-back samples judge a change"
            raise InputError("selector", self.name_of("selector"), expected)
        check_forgets(selector, self.name_of("selector"), "selector")
        if of_others := [fact for fact in OF_CLIENTS if fact in selector.needs]:
            expected = (
                f"one that does not ask for {' and '.join(of_others)}: a client knows its own change only"
            )
            fix = "Use it on the server (selection.selector), or what the change itself has (stats, vector)."
            raise InputError("selector", self.name_of("selector"), expected, fix)
        if self.decides == "client" and selector.needs_others is not None:
            raise InputError("decides", "client", f"server with {selector.needs_others}")
        if self.shared and (selector.moment == "by_change" or selector.own_metrics):
            raise InputError("shared", True, f"false with {chosen}, which looks at each client")
        if self.decides == "client" and self.alike:
            one = chosen if selector.same_for_all else "shared=true"
            raise InputError("decides", "client", f"server with {one}: one choice for all clients")
        budget = self.budget.budget
        equal = isinstance(budget, Equal) and budget.unit == "layers"
        if selector.budgeted and self.alike and not equal:
            one = chosen if selector.same_for_all else "shared=true"
            expected = f"the same number of layers for all clients with {one}"
            raise InputError("budget", self.budget.name_of("kind"), expected)
        if self.alternate and not self.keeps:
            raise InputError("alternate", True, "false without personal blocks", "Name them in personal.")
        return self

    @property
    def alike(self) -> bool:
        """Tells whether all clients of a round get one choice."""
        return self.shared or self.selector.same_for_all

    @property
    def chooses(self) -> bool:
        """Tells whether clients are restricted to some blocks."""
        return not isinstance(self.selector, Unrestricted)

    @property
    def keeps(self) -> bool:
        """Tells whether clients keep personal blocks."""
        return self.personal not in ("none", ())
