"""The mean of clipped changes with Gaussian noise: DP-FedAvg (McMahan et al., arXiv 1710.06963).

With the clipping norm c, the noise multiplier z and the expected number of clients m,

    dW = (sum_k d_k min(1, c / ||d_k||) + N(0, (z c)^2)) / m,       d_k = w_k - w

Blocks that no client was asked to send get no noise, since nothing of any client is in them.

Every client counts alike, whatever it holds, and the sum is divided by m and not by the number of clients
that took part, which may say who did. The noise is added before anything is scored, so that scores and
choices are made from what is published anyway, and cost no privacy.

The clipping norm may follow a quantile of the clients' norms (Andrew et al., arXiv 1905.03871): each client
also sends whether its norm is below c, and with b the noisy mean of these bits

    c' = c exp(-lr (b - quantile))

The bits have noise of their own, and the noise of the sum is raised so that both together cost what one sum
with the noise multiplier z costs (their Theorem 1).

With discrete noise, changes are whole multiples of a step, which clients (`PrivateMean.after`) and the sum
(`secure.secure_sum`) get noise in, as whole numbers (`discrete.Grid`; distributed: Kairouz et al., arXiv
2102.06387).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import exp, sqrt
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from typing_extensions import override

from fedtlu_fast.client_steps.step import (
    ClientContext,
    ClientStep,
    RoundChange,
    RunFacts,
    ServerContext,
    ServerHalf,
)
from fedtlu_fast.clients.trainer import ClientUpdate
from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.parts import part
from fedtlu_fast.privacy.discrete import TRIES, Grid
from fedtlu_fast.privacy.noise import NormalDraws, normal
from fedtlu_fast.randomness import generator

CLIP, BELOW = "clip", "below"
"""The names under which the server keeps c, [1] float32, and a client its bit, [1] float32: 1 if its norm
was below c."""
NOISE = "privacy.noise"
"""The name of the server's draws of noise."""
FARTHEST = 9
"""Standard deviations of the noise that there has to be room for: a normal number is farther away with a
probability of 2e-19."""
RESOLUTION = 2.0**-23
"""By what share two roundings to float32 move a number at most."""
HALF = 0.5
"""The largest difference that one client makes in the sum of bits from each of which a half is subtracted."""


@part
class Quantile:
    """Says how the clipping norm follows the clients' norms.

    Attributes:
        quantile: the share of clients whose changes are to be shorter than the clipping norm.
        lr: the step of the clipping norm's logarithm.
        noise: standard deviation of the noise in the sum of bits, more than half the noise multiplier; null:
            a twentieth of the cohort, as in the paper, or the noise multiplier if that is larger (ours).
    """

    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.5
    lr: Annotated[float, Field(gt=0)] = 0.2
    noise: Annotated[float, Field(gt=0)] | None = None

    def noise_of(self, cohort: int, noise_multiplier: float) -> float:
        """Returns the standard deviation of the noise in the sum of bits."""
        return max(cohort / 20, noise_multiplier) if self.noise is None else self.noise


@part
class PrivateMean(ClientStep):
    """Clients clip their changes, and their mean gets Gaussian noise.

    Buffers (statistics of BatchNorm) would be sent without noise: a model with buffers is refused.

    Attributes:
        noise_multiplier: standard deviation of the noise in the sum, divided by the clipping norm.
        cohort: number of clients in a round, by which the sum is divided; with Poisson sampling the expected
            number.
        clip: the largest L2 norm of a client's change; with `adapts` the one of the first round.
        per_block: whether each of the B blocks is clipped to ``clip / sqrt(B)``, so that one block cannot
            take the room of all others. The whole change is then never longer than `clip`.
        adapts: how the clipping norm follows the clients' norms; null: it stays.
        noise: who adds the noise: the server, or each client its share, with a variance of
            ``(noise_multiplier clip)^2 / cohort``. The server adds the shares of clients that do not arrive,
            so that what is published has the same noise in every round.
        discrete: whether the noise is discrete Gaussian and added to whole numbers. It needs a `SecureSum`
            with the same `grid`, which makes the sum.
    """

    noise_multiplier: Annotated[float, Field(ge=0)]
    cohort: Annotated[int, Field(ge=1)]
    clip: Annotated[float, Field(gt=0)] = 1.0
    per_block: bool = False
    adapts: Quantile | None = None
    noise: Literal["server", "clients"] = "server"
    discrete: bool = False
    reads: ClassVar[tuple[str, ...]] = (CLIP,)
    sees_clients: ClassVar[bool] = False  # it needs sums only

    def __post_init__(self) -> None:
        if self.discrete and not self.noise_multiplier:
            raise InputError("discrete", True, "false without noise")
        if self.adapts is None:
            return
        if self.discrete:
            raise InputError("adapts", self.adapts, "null with discrete=true: bits have noise that is not")
        if self.per_block:
            raise InputError("per_block", True, "false with a clipping norm that adapts: there is one norm")
        least, given = self.noise_multiplier * HALF, self.adapts.noise
        if given is not None and given <= least:
            raise InputError("adapts.noise", given, f"more than {least:.4g}, half the noise multiplier")

    @property
    def sum_noise_multiplier(self) -> float:
        """The noise multiplier of the sum, which is larger if bits are published beside it."""
        if self.adapts is None or not self.noise_multiplier:
            return self.noise_multiplier
        of_bits = self.adapts.noise_of(self.cohort, self.noise_multiplier) / HALF
        return 1 / sqrt(self.noise_multiplier**-2 - of_bits**-2)

    @property
    def grid(self) -> Grid:
        """The whole multiples that discrete noise is added to."""
        whole = self.noise_multiplier * self.clip
        if self.noise == "server":
            return Grid.of(whole)
        return Grid.of(whole / sqrt(self.cohort), self.cohort)

    @override
    def check(self, facts: RunFacts) -> None:
        check_buffers(facts.layout)

    @override
    def after(self, client: ClientContext, update: ClientUpdate) -> ClientUpdate:
        if client.start is None or not update.is_sound(client.start.buffers):
            # NaN everywhere: a later step may cut off what is not sound, and the rest has no clipping.
            return replace(update, params=torch.full_like(update.params, torch.nan))
        clip = float(client.server[CLIP][0]) if CLIP in client.server else self.clip
        params, norm = clipped(client.params, update.params, client.facts.layout, clip, self.per_block)
        if self.discrete:
            params = client.params + self._whole(client, params - client.params)
        elif self.noise == "clients":
            scale = self.sum_noise_multiplier * clip / sqrt(self.cohort)
            params = params + scale * normal(client.generator("privacy.share"), params)
        memory = {} if self.adapts is None else {BELOW: np.array([norm <= clip], np.float32)}
        return replace(update, params=params, weight=1.0, memory=memory)

    def _whole(self, client: ClientContext, change: Tensor) -> Tensor:
        """Returns a clipped change [P] in whole steps, with the noise that this client adds."""
        found = self.grid.whole(change.cpu().numpy(), self.clip)
        found += self.grid.share(client.generator("privacy.share"), len(found))
        return torch.from_numpy(found * self.grid.step).to(change)

    def noisy(
        self, mean: Tensor, clients: float, clip: float, draws: NormalDraws, share: float = 1.0
    ) -> Tensor:
        """Returns the noisy sum of clipped changes, divided by `cohort`.

        Args:
            mean: [P] float32, the mean of the changes of those clients that arrived.
            clients: their number.
            clip: the clipping norm.
            draws: the source of the server's noise.
            share: the share of the noise's variance that the server adds.
        """
        change = mean * (clients / self.cohort)
        scale = sqrt(share) * self.sum_noise_multiplier * clip / self.cohort
        if scale:
            change += scale * normal(draws, change)
        return change

    @override
    def server_half(self, server: ServerContext) -> ServerHalf:
        return _Noisy(self, server)


class _Noisy(ServerHalf):
    def __init__(self, step: PrivateMean, server: ServerContext) -> None:
        self._step, self._facts, self._round = step, server.facts, server.round
        held = server.memory.server.get(CLIP)
        self._clip = step.clip if held is None else float(held[0])
        if step.discrete:
            _check_resolution(server.params, step)

    @override
    def complete(self, aggregated: RoundChange) -> RoundChange:
        step, clients = self._step, aggregated.weight
        draws = generator(self._facts.seed, NOISE, self._round)
        missing = 1.0 if step.noise == "server" else max(0.0, 1 - clients / step.cohort)
        if step.discrete:
            total = aggregated.change  # the sum of all clients, with its noise, as of one client
            if aggregated.empty:
                alone = step.grid.rest(draws, len(total), 0) * step.grid.step
                total = torch.from_numpy(alone).to(total)
            change = total / step.cohort
        else:
            change = step.noisy(aggregated.change, clients, self._clip, draws, missing)
        if not step.noise_multiplier:
            return self._adapted(aggregated, change)
        unsent = aggregated.unsent
        if aggregated.asked is not None:
            layout = self._facts.layout
            unsent = tuple(sorted(set(range(len(layout.blocks))).difference(aggregated.asked)))
            for run in layout.runs(unsent):
                change[run] = 0.0
        # Noise is published in a round without clients too: that nobody took part must not show.
        return replace(self._adapted(aggregated, change), empty=False, unsent=unsent)

    def _adapted(self, aggregated: RoundChange, change: Tensor) -> RoundChange:
        adapts, cohort = self._step.adapts, self._step.cohort
        if adapts is not None:
            known = [new[BELOW] for new in aggregated.memory.values() if BELOW in new]
            bits = float(np.sum(np.asarray(known) - HALF))
            if self._step.noise_multiplier:
                draws = generator(self._facts.seed, "privacy.bits", self._round)
                scale = adapts.noise_of(cohort, self._step.noise_multiplier)
                bits += scale * draws.standard_normal()
            below = HALF + bits / cohort
            clip = self._clip * exp(-adapts.lr * (below - adapts.quantile))
            self.server = {CLIP: torch.tensor([clip], dtype=torch.float32)}
        return replace(aggregated, change=change)


def check_buffers(layout: ParameterLayout) -> None:
    """Raises an error if a model has floating-point buffers, which would be averaged without noise."""
    if layout.buffers:
        expected = "a model without floating-point buffers, which would be averaged without noise"
        given = f"a model with {layout.buffers[0].name}"
        raise InputError("privacy", given, expected, "Use GroupNorm or LayerNorm.")


def _check_resolution(params: Tensor, step: PrivateMean) -> None:
    """Raises an error if float32 parameters do not hold whole steps of changes, with all of their noise."""
    grid = step.grid
    largest = float(params.abs().max()) + step.clip + FARTHEST * grid.deviation * grid.step
    if largest * RESOLUTION >= grid.step / 2:
        expected = f"false: parameters and changes up to {largest:.3g} cannot hold steps of {grid.step:.2g}"
        fix = "Or start a run with a larger privacy.clipping_norm or noise_multiplier."
        raise InputError("privacy.discrete", True, expected, fix)


def clipped(
    base: Tensor, params: Tensor, layout: ParameterLayout, clip: float, per_block: bool = False
) -> tuple[Tensor, float]:
    """Returns parameters whose change is no longer than the clipping norm, and the norm of the given change.

    Rounding is part of the change that the server computes: ``params - base`` in float32 is never longer
    than the clipping norm in float64.

    Args:
        base: [P] float32, the global parameters.
        params: [P] float32, the client's parameters; not changed.
        layout: of the model.
        clip: the clipping norm.
        per_block: see `PrivateMean`.
    """
    norm, found = _norm(params - base), params.clone()
    parts = list(_parts(layout, per_block))
    for runs in parts:
        _clip_(base, found, runs, clip / sqrt(len(parts)))
    return found, norm


def _parts(layout: ParameterLayout, per_block: bool) -> Iterator[list[slice]]:
    """Yields the places of each part that is clipped on its own."""
    if not per_block:
        yield [slice(0, layout.size)]
        return
    for block in range(len(layout.blocks)):
        yield layout.runs({block})


def _clip_(base: Tensor, params: Tensor, runs: list[slice], clip: float) -> None:
    """Scales the changes at these places down until their common norm is at most `clip`."""
    for _ in range(TRIES):
        norm = sqrt(sum(_norm(params[run] - base[run]) ** 2 for run in runs))
        if norm <= clip:
            return
        for run in runs:
            # A little more than needed, so that rounding does not call for another try.
            params[run] = base[run] + (params[run] - base[run]) * (clip / norm * (1 - 1e-6))
    for run in runs:  # the clipping norm is below the resolution of the parameters
        params[run] = base[run]


def _norm(change: Tensor) -> float:
    return float(torch.linalg.vector_norm(change, dtype=torch.float64))
