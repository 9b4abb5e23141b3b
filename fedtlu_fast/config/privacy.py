"""Defines the settings of privacy: differential privacy of clients, and what the server may see of them."""

from __future__ import annotations

from math import sqrt
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from fedtlu_fast.config.chooser import Chooser
from fedtlu_fast.config.masks import MasksConfig
from fedtlu_fast.config.parts_section import PartsSection
from fedtlu_fast.config.section import check_unused
from fedtlu_fast.errors import InputError
from fedtlu_fast.privacy.accountants import Accountant, Rdp
from fedtlu_fast.privacy.private_mean import FARTHEST, PrivateMean, Quantile
from fedtlu_fast.secure.secure_sum import FEWEST, SecureSum

FINE = 4
"""The least standard deviation of a client's noise, in steps of masked numbers. What rounding then tells of
the number before the noise is below 1e-100."""
OF_SERVER = {"server_sees", "secure_aggregation", "masks"}
"""The settings that say what the server sees."""


class PrivacyConfig(PartsSection):
    """Says what may become known of a client: to the world (differential privacy), and to the server."""

    epsilon: float | None = Field(
        None,
        gt=0,
        description="budget of differential privacy for one client: the rounds of the run never cost more; "
        "null: no budget",
    )
    delta: float = Field(
        1e-5,
        gt=0,
        lt=1,
        description="the delta of (epsilon, delta)-differential privacy, below 1 / clients",
    )
    noise_multiplier: float | None = Field(
        None,
        ge=0,
        description="standard deviation of the noise in the sum of a round's changes, in clipping "
        "norms; null: the smallest that keeps epsilon over all rounds, or no noise without epsilon",
    )
    clipping_norm: float = Field(1.0, gt=0, description="largest L2 norm of a client's change")
    per_block: bool = Field(
        False, description="whether each of the B blocks is clipped on its own, to clipping_norm / sqrt(B)"
    )
    quantile: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="share of clients with changes shorter than the clipping norm, which then follows them "
        "from round to round (arXiv 1905.03871), beginning with clipping_norm; null: the norm stays",
    )
    clip_lr: float = Field(0.2, gt=0, description="with quantile: the step of the clipping norm's logarithm")
    count_noise: float | None = Field(
        None,
        gt=0,
        description="with quantile: standard deviation of the noise in the number of clients below the norm; "
        "null: cohort / 20, at least the noise multiplier",
    )
    noise: Literal["server", "clients"] = Field(
        "server",
        description="who adds the noise: server | clients (each its share; the server adds those of clients "
        "that do not arrive)",
    )
    discrete: bool = Field(
        False,
        description="whether the noise is discrete Gaussian, added in whole numbers; with secure_aggregation",
    )
    accountant: Annotated[Accountant, Chooser("accountant", base=Accountant)] = Field(
        Rdp(),
        description="how the cost of the rounds is computed, by dp-accounting: rdp | pld (tighter; with "
        "participation.sampler=poisson) | package.module:Name",
    )
    server_sees: Literal["clients", "aggregate"] = Field(
        "clients",
        description="what the parts on the server may use: clients (each change by itself) | aggregate (only "
        "sums over the clients of a round, as under secure aggregation; parts that need more are refused)",
    )
    secure_aggregation: bool = Field(
        False,
        description="whether the server gets the clients' sum by secure aggregation, simulated with pairwise "
        "masks (Bonawitz et al., CCS 2017); it implies server_sees=aggregate",
    )
    masks: MasksConfig = MasksConfig()

    @property
    def on(self) -> bool:
        """Whether clients' changes are clipped, and noise is added."""
        return self.epsilon is not None or self.noise_multiplier is not None

    @property
    def adapts(self) -> Quantile | None:
        """Returns how the clipping norm follows the clients' norms; None: it stays."""
        if self.quantile is None:
            return None
        return Quantile(self.quantile, self.clip_lr, self.count_noise)

    def mean(self, cohort: int) -> PrivateMean:
        """Returns the client step that clips and adds noise.

        Args:
            cohort: number of clients in a round.

        Raises:
            InputError: the noise is not known yet, or too large for the number of clients below the norm.
        """
        if self.noise_multiplier is None:
            raise InputError("privacy.noise_multiplier", None, "a number, once the budget has been looked at")
        try:
            return PrivateMean(
                self.noise_multiplier,
                cohort,
                self.clipping_norm,
                self.per_block,
                self.adapts,
                self.noise,
                self.discrete,
            )
        except InputError as error:
            renamed = {"adapts.noise": "count_noise", "clip": "clipping_norm"}
            raise error.of(f"privacy.{renamed.get(error.field, error.field)}") from None

    @property
    def sums(self) -> str | None:
        """Returns the setting because of which the server sees sums only; None: it sees clients."""
        if self.secure_aggregation:
            return "privacy.secure_aggregation=true"
        return "privacy.server_sees=aggregate" if self.server_sees == "aggregate" else None

    def masked(self, clients: int, cohort: int) -> SecureSum:
        """Returns the client step of secure aggregation.

        Args:
            clients: number of clients that are drawn in a round.
            cohort: number of clients in a round.

        Raises:
            InputError: the sum of so many clients does not fit, or there are too few for a sum.
        """
        if clients < FEWEST:
            expected = f"{FEWEST} or more with privacy.secure_aggregation=true"
            raise InputError("cohort", clients, expected, "A sum of one is a client's own change.")
        toward_zero = self.on and self.noise == "server" and not self.discrete
        grid = self.mean(cohort).grid if self.discrete and self.noise_multiplier else None
        given = self.masks.model_dump()
        try:
            return SecureSum(clients, **given, private=self.on, toward_zero=toward_zero, grid=grid)
        except InputError as error:
            raise error.of(f"privacy.masks.{error.field}") from None

    def check_range(self, cohort: int, clients: int) -> None:
        """Checks that masked numbers hold the clients' shares of the noise: nothing is cut off or too coarse.

        Noise that is cut is less noise than the account counts. And a step far below the noise is lost in it,
        while a coarse one would depend on the change.

        Args:
            cohort: number of clients in a round.
            clients: number of clients that are drawn in a round.

        Raises:
            InputError: the range is too small, or the steps are too coarse.
        """
        if not self.secure_aggregation or not self.noise_multiplier:
            return
        if self.noise == "clients":
            share = self.mean(cohort).sum_noise_multiplier * self.clipping_norm / sqrt(cohort)
            least, given = self.clipping_norm + FARTHEST * share, self.masks.largest_change
            if given < least:
                expected = (
                    f"{least:.4g} or more with privacy.noise=clients: noise that is cut off would be missing"
                )
                raise InputError("privacy.masks.largest_change", given, expected)
            step = self.masked(clients, cohort).encoding(clients).step(1.0)
            if not self.discrete and share < FINE * step:
                expected = (
                    f"64 with privacy.noise=clients, or a smaller largest_weight: numbers have steps of "
                    f"{step:.2g}, and a client's noise is {share:.2g}"
                )
                raise InputError("privacy.masks.bits", self.masks.bits, expected)
        if self.discrete:
            grid, scale = self.mean(cohort).grid, self.masked(clients, cohort).encoding(clients).scale
            farthest = FARTHEST * grid.deviation * sqrt(max(1, grid.shares))
            if clients * scale + farthest >= 2 ** (self.masks.bits - 1):
                expected = "64 with privacy.discrete=true: the sum and its noise would not fit"
                raise InputError("privacy.masks.bits", self.masks.bits, expected)

    @model_validator(mode="after")
    def _only_what_it_uses(self) -> Self:
        if not self.on:
            check_unused(self, OF_SERVER, "neither epsilon nor noise_multiplier")
        elif self.quantile is None:
            others = set(type(self).model_fields) - {"clip_lr", "count_noise"}
            check_unused(self, others, "quantile=null")
        if not self.secure_aggregation:
            if self.discrete:
                expected = "false: whole numbers are those of secure aggregation"
                raise InputError("discrete", True, expected, "Or set privacy.secure_aggregation=true.")
            try:
                check_unused(self.masks, (), "secure_aggregation=false")
            except InputError as error:
                raise error.of(f"masks.{error.field}") from None
        return self
