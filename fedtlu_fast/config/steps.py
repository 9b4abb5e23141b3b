"""Defines the settings of client steps: what clients do around their training, and threats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from fedtlu_fast.algorithms import Scaffold
from fedtlu_fast.client_steps import ClientStep
from fedtlu_fast.client_steps.threats import SignFlip
from fedtlu_fast.config.chooser import Chooser
from fedtlu_fast.config.parts_section import PartsSection
from fedtlu_fast.errors import InputError
from fedtlu_fast.registry import names


class StepConfig(PartsSection):
    """Holds one client step; its parameters stand beside its name."""

    @property
    def step(self) -> ClientStep:
        """Returns the part that `kind` chooses."""
        found: ClientStep = getattr(self, "kind")  # noqa: B009 (each subclass has its own annotation)
        return found

    @classmethod
    def spelled_out(cls, given: Any) -> Any:
        """Expands ``NAME:VALUE:VALUE``; the values are the first parameters of the step in order."""
        if isinstance(given, str):
            return cls.choosers()["kind"].spelled_out("kind", given)
        if not isinstance(given, Mapping | StepConfig):
            return {"kind": given}  # a part; anything else is refused by `check_base`
        if isinstance(given, Mapping) and "kind" not in given:
            part = cls.choosers()["kind"].kind
            expected = f"the name of a {part.replace('_', ' ')}, such as {next(iter(names(part)))}"
            fix = f"Write kind: {given['name']} instead of name." if "name" in given else ""
            raise InputError("kind", None, expected, fix)
        if isinstance(given, Mapping) and given.get("strength", 0) is None:
            given = {name: value for name, value in given.items() if name != "strength"}
        return super().spelled_out(given)


class ThreatConfig(StepConfig):
    """Describes noisy or malicious clients; see `client_steps.threats`. Threats take different clients."""

    kind: Annotated[ClientStep, Chooser("threat", base=ClientStep)] = Field(
        SignFlip(),
        description="what is wrong. With the data: label_noise | token_noise | label_flip (label l of n "
        "becomes n - 1 - l). With the change: noise | sign_flip | scaling | random (only noise is sent) | "
        "shift (a constant is added, which raises Eq. 1) | a_little_is_enough (arXiv 1902.06156) | "
        "package.module:Name",
    )


class ClientStepConfig(StepConfig):
    """Describes what all clients do around their training: an algorithm, or an own step of the user."""

    kind: Annotated[ClientStep, Chooser("client_step", base=ClientStep)] = Field(
        Scaffold(),
        description="the client step: scaffold (arXiv 1910.06378) | feddyn (arXiv 2111.04263; "
        "training.proximal_mu is its alpha) | fednova (arXiv 2007.07481) | ditto (arXiv 2012.04221) | "
        "top_k (arXiv 1809.07599) | random_k (arXiv 1610.05492) | quantise (arXiv 1610.02132) | sign (arXiv "
        "1901.09847) | majority_vote (arXiv 1810.05291) | low_rank (arXiv 1905.13727) | package.module:Name",
    )


def listed(value: Any) -> Any:
    """Returns a single step as a list with one item; a list is returned unchanged."""
    return [value] if isinstance(value, str | Mapping | ClientStep) else value
