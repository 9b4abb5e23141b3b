"""Settings: which blocks each client trains or sends."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from fedtlu_fast.config.budget import BudgetConfig
from fedtlu_fast.config.section import Section, check_unused
from fedtlu_fast.errors import InputError
from fedtlu_fast.gradient_metrics import GradientMetric
from fedtlu_fast.selection.budgets import Equal

PROBING = ("gradnorm", "rgn", "snr", "strategic")
"""Selectors that have clients compute a gradient before they train."""
BUDGETED = ("random", "top", "bottom", "both", *PROBING, "fedluar", "drift")


def used_by(selector: str) -> set[str]:
    """The settings that mean something beside this selector."""
    used = {"selector"}
    if selector != "none":
        used |= {"frozen", "always", "only", "personal", "alternate", "decides"}
    if selector in BUDGETED:
        used |= {"budget"}
    if selector in PROBING:
        used |= {"probe_batches", "probe_every"}
    own = {
        "strategic": {"metric", "lam"},
        "fedpart": {"rounds_per_block", "full_rounds"},
        "fedlp": {"probability"},
    }
    return used | own.get(selector, set())


class ClientSelectionConfig(Section):
    """Which blocks each client trains or sends (arXiv 2408.15600 and its kin)."""

    selector: Literal[
        "none",
        "full",
        "random",
        "top",
        "bottom",
        "both",
        "gradnorm",
        "rgn",
        "snr",
        "strategic",
        "fedpart",
        "fedlp",
        "fedluar",
        "drift",
    ] = Field(
        "none",
        description="none (every client trains everything) | full (all but what is frozen) | random | top, "
        "bottom, both (output's side, input's, in turn) | gradnorm | rgn | snr (each client's own best) | "
        "strategic (P1: clients agree) | fedpart | fedlp | fedluar | drift",
    )
    budget: BudgetConfig = BudgetConfig()
    metric: GradientMetric = Field("gradnorm", description="strategic: gains are gradnorm | rgn | snr")
    lam: float = Field(
        0.1, ge=0, description="strategic: lambda, in units of the round's mean gain; 0: nobody has to agree"
    )
    decides: Literal["server", "client"] = Field(
        "server", description="who chooses: server (sees every client's numbers) | client (each alone)"
    )
    probe_batches: int = Field(1, ge=1, description="batches of a probe's mean gradient")
    probe_every: int = Field(1, ge=1, description="rounds after which a client probes anew")
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
    rounds_per_block: int = Field(1, ge=1, description="fedpart: rounds for each block of a cycle")
    full_rounds: int = Field(0, ge=0, description="fedpart: rounds of everything between two cycles")
    probability: float = Field(0.5, gt=0, le=1, description="fedlp: chance that a block is sent")

    @model_validator(mode="after")
    def _only_what_it_uses(self) -> Self:
        used = used_by(self.selector)
        check_unused(self, used, f"selector={self.selector}")
        if self.decides == "client" and self.selector == "strategic" and self.lam > 0:
            raise InputError("decides", "client", "server with lam > 0: nobody alone can agree with others")
        if self.decides == "client" and self.selector in ("fedpart", "fedluar"):
            raise InputError("decides", "client", f"server with selector={self.selector}: one choice for all")
        budget = self.budget.budget
        if self.selector == "fedluar" and not (isinstance(budget, Equal) and budget.unit == "layers"):
            expected = "the same number of blocks for all with selector=fedluar"
            raise InputError("budget", self.budget.name_of("kind"), expected)
        if self.alternate and not self.keeps:
            raise InputError("alternate", True, "false without personal blocks", "Name them in personal.")
        return self

    @property
    def keeps(self) -> bool:
        """Whether clients keep blocks for themselves."""
        return self.personal not in ("none", ())

    @property
    def gradient_metric(self) -> GradientMetric:
        """What probing clients measure."""
        names: dict[str, GradientMetric] = {"rgn": "rgn", "snr": "snr", "strategic": self.metric}
        return names.get(self.selector, "gradnorm")

    @property
    def probes(self) -> bool:
        """Whether clients compute a gradient before they train."""
        return self.selector in PROBING
