"""What a report says of the settings of a run, read from the config.yaml that the run left."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout.blocks import Granularity
from fedtlu_fast.parts import make, parameters
from fedtlu_fast.registry import find
from fedtlu_fast.runs.directory import CONFIG
from fedtlu_fast.runs.sealed import read_sealed_yaml
from fedtlu_fast.selection import FunctionSelector, Keep, Selector
from fedtlu_fast.wording import rounds_text
from fedtlu_fast.yaml_text import parse_yaml


@dataclass(frozen=True)
class RunSettings:
    """The settings of a run, or those that all runs of a comparison share.

    Attributes:
        text: all settings, as YAML.
        tree: all settings, as a nested mapping.
    """

    text: str
    tree: Mapping[str, Any]

    @classmethod
    def of(cls, text: str) -> RunSettings:
        """The settings in a complete YAML text, such as `RunConfig.to_yaml` gives."""
        return cls(text, parse_yaml(text))

    @classmethod
    def read(cls, directory: Path) -> RunSettings:
        """The settings of the run or comparison that a directory holds.

        Raises:
            InputError: the directory has no config.yaml, or it is not as it was written.
        """
        return cls.of(read_sealed_yaml(directory / CONFIG, "the settings of this run"))

    @property
    def seed(self) -> int:
        """The seed of the run; of a comparison, the first one's."""
        return int(self.tree["seed"])

    @property
    def source(self) -> str:
        """The data source, as the settings name it."""
        return str(self.tree["data"]["source"])

    @property
    def quoted_name(self) -> str:
        """The name that the user gave the run, as titles show it; empty for a run without one."""
        name = self.tree.get("run_name")
        return f" “{name}”" if name else ""

    @property
    def selector(self) -> str:
        """The name of the server's selector."""
        return str(self.tree["selection"]["selector"])

    @property
    def shown_selector(self) -> str:
        """The selector's name as titles show it: without ``__main__``, the module of every script."""
        return self.selector.removeprefix("__main__:")

    @property
    def granularity(self) -> Granularity:
        """What is chosen: blocks, modules or tensors."""
        return cast(Granularity, self.tree["selection"]["granularity"])

    @property
    def blocks(self) -> tuple[str, ...]:
        """Patterns that name blocks; runs of earlier versions have none."""
        return tuple(self.tree["selection"].get("blocks", ()))

    @property
    def updates_unique(self) -> bool:
        """Whether unique blocks are updated in every round; runs of earlier versions call it ungrouped."""
        chosen = self.tree["selection"]
        return bool(chosen.get("unique", chosen.get("ungrouped")) == "always")

    @property
    def records_benefit(self) -> bool:
        """Whether the benefit of blocks is recorded; runs of earlier versions have no such setting."""
        return bool(self.tree["evaluation"].get("benefit", False))

    @property
    def measures_costs(self) -> bool:
        """Whether runs may have measured their bytes and FLOPs."""
        return bool(self.tree["evaluation"]["flops"] != "never")

    @property
    def rounds_text(self) -> str:
        """Describes the rounds for titles of tables; see `wording.rounds_text`."""
        return rounds_text(self.tree["rounds"], self.tree["warmup_rounds"])

    @property
    def lead(self) -> str:
        """The first words below the title of a page."""
        clients, cohort = self.tree["clients"], self.tree["cohort"]
        return f"{self.rounds_text}, {clients} clients, {cohort} in a round"

    @property
    def keep(self) -> Keep:
        """The blocks that are kept in each group."""
        return cast(Keep, self.tree["selection"]["keep"])

    def made_selector(self) -> Selector | None:
        """The server's selector with its parameters; None for a user's selector that cannot be made here."""
        own = self.tree["selection"]
        try:
            found = find("selector", self.selector, "selection.selector")
            if inspect.isclass(found):
                given = {name: own[name] for name in parameters(found) if name in own}
                return cast(Selector, make(found, given))
        except InputError:
            return None
        return FunctionSelector(found) if inspect.isfunction(found) else cast(Selector, found)
