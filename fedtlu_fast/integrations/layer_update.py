"""The settings of a server that updates only the layers that matter, for tools that train the clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from fedtlu_fast.aggregation import AggregationRule, FunctionRule, Mean, Plain, ServerOptimizer
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout.blocks import Granularity
from fedtlu_fast.parts import by_name, part
from fedtlu_fast.privacy.private_mean import PrivateMean
from fedtlu_fast.selection import FedTLU, Keep, Selector, Unique, as_selector


@part
class LayerUpdate:
    """How a server makes a step of what clients send, with the same parts as a simulation.

    Attributes:
        selection: which blocks of the aggregated change are applied: a name, a selector, or a score
            ``(change) -> [B]``.
        keep: how many blocks of each group of like blocks are applied: 2, or a share 0.5.
        aggregation: the rule that makes one change of the clients' changes: a name, a rule, or a function
            ``(updates [K, P], weights [K]) -> change [P]``.
        server_optimizer: makes the server's step of the change: a name or an optimizer.
        server_lr: factor on the step.
        unique: whether blocks that have no like (embeddings, head) are applied ``always`` or ``never``.
        granularity: what is chosen: ``block``, ``module`` or ``tensor``.
        blocks: patterns of names where discovery does not see the blocks; see `ParameterLayout.from_module`.
        warmup_rounds: first rounds that apply every block.
        seed: of the selector's draws.
        backend: which backend runs the kernels; ``auto`` takes the best live one.
        privacy: clips every client's change on the server and adds noise to their sum before anything is
            scored; all clients weigh the same. None: no differential privacy.
        noise_source: where the noise comes from: ``system`` (the operating system's cryptographic source), or
            ``seed``, which can be repeated, and subtracted by whoever knows the seed.
    """

    selection: Annotated[Selector, BeforeValidator(as_selector)] = FedTLU()
    keep: Keep = 2
    aggregation: Annotated[AggregationRule, BeforeValidator(by_name("rule", FunctionRule))] = Mean()
    server_optimizer: Annotated[ServerOptimizer, BeforeValidator(by_name("server_optimizer"))] = Plain()
    server_lr: Annotated[float, Field(gt=0)] = 1.0
    unique: Unique = "always"
    granularity: Granularity = "block"
    blocks: tuple[str, ...] = ()
    warmup_rounds: Annotated[int, Field(ge=0)] = 0
    seed: int = 0
    backend: str = "auto"
    privacy: PrivateMean | None = None
    noise_source: Literal["system", "seed"] = "system"

    def __post_init__(self) -> None:
        """Checks that the selector needs nothing that such a server does not have.

        Raises:
            InputError: The selector, or a metric of it, asks for held-out samples, or a part does not fit
                `privacy`.
        """
        if "held_out" in self.selection.asked("selection"):
            needs = ", ".join(self.selection.needs)
            expected = f"a selector that needs no samples held by the server, but this one needs {needs}"
            fix = "They are there in a simulation with evaluation.held_out."
            raise InputError("selection", type(self.selection).__name__, expected, fix)
        if self.privacy is not None:
            self._check_private(self.privacy)

    def _check_private(self, privacy: PrivateMean) -> None:
        if type(self.aggregation) is not Mean or self.aggregation.max_share is not None:
            name = type(self.aggregation).__name__
            raise InputError("aggregation", name, "the mean with privacy: the noise is measured for it")
        if asked := self.selection.asked("selection"):
            name, facts = type(self.selection).__name__, " and ".join(sorted(asked))
            expected = f"a selector that needs only the noisy change with privacy; this one asks for {facts}"
            raise InputError("selection", name, expected)
        if privacy.noise != "server" or privacy.adapts is not None or privacy.discrete:
            expected = "a PrivateMean with noise='server', discrete=False and a clipping norm that stays"
            raise InputError("privacy", repr(privacy), expected)


def without_settings(given: Mapping[str, Any]) -> tuple[LayerUpdate, dict[str, Any]]:
    """Separates the parameters of a `LayerUpdate` from others that were given with them.

    Returns:
        The `LayerUpdate`, and the other parameters.

    Raises:
        InputError: a parameter of `LayerUpdate` is wrong.
    """
    known = {field.name for field in fields(LayerUpdate)}
    own = {name: value for name, value in given.items() if name in known}
    return LayerUpdate(**own), {name: value for name, value in given.items() if name not in known}
