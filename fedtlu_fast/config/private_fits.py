"""Checks that no part of a run uses more of the clients than `privacy` allows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fedtlu_fast.aggregation import Mean
from fedtlu_fast.client_steps import ClientStep
from fedtlu_fast.client_steps.step import compresses, does
from fedtlu_fast.errors import InputError
from fedtlu_fast.participation import Poisson, Uniform
from fedtlu_fast.scoring.block_metrics import OF_CLIENTS
from fedtlu_fast.secure.secure_sum import fewest_of

if TYPE_CHECKING:
    from fedtlu_fast.config.run import RunConfig


def check_private(config: RunConfig) -> None:
    """Raises an error for the first part that uses more of the clients than `privacy` allows.

    Raises:
        InputError: a part does not fit; the error names its setting.
    """
    given = config.privacy
    if given.on:
        for error in _beyond_noise(config, "with differential privacy"):
            raise error
        if given.noise_multiplier is not None:
            given.mean(config.cohort)  # refuses what does not fit
    if given.sums is not None:
        for error in _beyond_sums(config, f"with {given.sums}"):
            raise error
    if given.secure_aggregation:
        if not (given.discrete and given.noise_multiplier is None):  # the steps follow from the noise
            given.masked(drawn(config), config.cohort)  # refuses what does not fit
        for error in _beyond_masks(config, f"with {given.sums}"):
            raise error


def drawn(config: RunConfig) -> int:
    """Returns the number of clients that are drawn in a round; with Poisson sampling their mean."""
    return config.participation.value.drawn(config.cohort)


def _beyond_noise(config: RunConfig, when: str) -> Iterator[InputError]:
    """Yields an error for each part by which something of the clients would get out without noise."""
    given, part = config.participation, config.participation.sampler
    delta, most = config.privacy.delta, 1 / config.clients
    if delta >= most:
        expected = (
            f"less than 1 / clients, {most:.3g}: else publishing one client whole would count as private"
        )
        yield InputError("privacy.delta", delta, expected)
    if type(part) not in (Uniform, Poisson):
        expected = f"uniform or poisson {when}: the cost of a round is known for these only"
        yield InputError("participation.sampler", given.name_of("sampler"), expected)
    if given.trace is not None or given.duty < 1:
        field, value = ("trace", given.trace) if given.trace is not None else ("duty", given.duty)
        expected = f"no value {when}: the cost of a round is that of a draw from all clients"
        yield InputError(f"participation.{field}", value, expected, "Leave it out.")
    if config.privacy.noise == "clients" and isinstance(part, Poisson):
        expected = "server with participation.sampler=poisson: shares of the noise need cohorts of one size"
        yield InputError("privacy.noise", "clients", expected)
    yield from _other_rule(config, f"mean {when}: the noise is measured for it")
    if config.aggregation.rule.max_share is not None:
        expected = f"null {when}: all clients weigh the same"
        yield InputError("aggregation.max_share", config.aggregation.rule.max_share, expected)
    yield from _orders(config, when)
    yield from _selector(config, f"one that needs only the noisy change {when}")
    for place, own in enumerate(config.client_steps):
        if config.privacy.noise == "clients" and compresses(own.step):
            expected = "no compression with privacy.noise=clients, whose noise is not compressed"
            yield InputError(f"client_steps.{place}", own.name_of("kind"), expected)
        if does(own.step, "server_half"):
            expected = f"a step that sends nothing beside the change {when}"
            yield InputError(f"client_steps.{place}", own.name_of("kind"), expected)


def _beyond_sums(config: RunConfig, when: str) -> Iterator[InputError]:
    """Yields an error for each part on the server that needs vectors or numbers of single clients."""
    yield from _other_rule(config, f"mean {when}: the others need the vector of each client")
    sampler, share = config.participation.sampler, config.aggregation.rule.max_share
    if sampler.keeps_losses or sampler.needs_sizes:
        what = "losses" if sampler.keeps_losses else "numbers of samples"
        expected = f"one that does not use the clients' {what} {when}"
        yield InputError("participation.sampler", config.participation.name_of("sampler"), expected)
    if share is not None:
        expected = f"null {when}: it needs the clients' numbers of samples"
        yield InputError("aggregation.max_share", share, expected)
    yield from _selector(config, f"one that needs only the aggregate {when}")
    chosen = config.client_selection
    if chosen.chooses and chosen.decides == "server" and not chosen.alike:
        expected = f"client {when}: to choose for clients, the server needs numbers of each of them"
        yield InputError("client_selection.decides", "server", expected)
    for kind, steps in (("threats", config.threats), ("client_steps", config.client_steps)):
        for place, own in enumerate(steps):
            if _sees_clients(own.step):
                expected = f"one whose half on the server needs sums only {when}"
                yield InputError(f"{kind}.{place}", own.name_of("kind"), expected)


def _orders(config: RunConfig, when: str) -> Iterator[InputError]:
    """Yields an error if the blocks that clients send follow from their data, or are not the same for all."""
    chosen, name = config.client_selection, config.client_selection.name_of("selector")
    if not chosen.chooses:
        return
    if chosen.selector.own_metrics or chosen.selector.moment == "by_change":
        expected = f"earlier, or one that looks at no client, {when}: what clients choose has no noise"
        yield InputError("client_selection.selector", name, expected)
    elif chosen.selector.recycles:
        expected = f"another {when}: blocks that are used again would get noise again"
        yield InputError("client_selection.selector", name, expected)
    elif not chosen.alike:
        expected = f"true {when} and selector={name}: the noise is that of blocks that all clients send"
        yield InputError("client_selection.shared", False, expected)


def _beyond_masks(config: RunConfig, when: str) -> Iterator[InputError]:
    """Yields an error for each part that sends something else than a vector of one length for all clients."""
    if config.privacy.on and isinstance(config.participation.sampler, Poisson):
        expected = (
            f"uniform {when} and differential privacy: no sum is made of fewer than two clients, so that one "
            f"client decides whether another counts"
        )
        yield InputError("participation.sampler", "poisson", expected)
    asked = drawn(config)
    needed = fewest_of(asked, config.privacy.masks.threshold)
    if needed > config.cohort:
        expected = (
            f"less {when}: of {asked} clients that are drawn {needed} have to send "
            f"(privacy.masks.threshold), and {config.cohort} may"
        )
        yield InputError("participation.over_selection", config.participation.over_selection, expected)
    if config.privacy.quantile is not None:
        expected = f"null {when}: clients send bits for it, which are not masked"
        yield InputError("privacy.quantile", config.privacy.quantile, expected)
    chosen = config.client_selection
    if chosen.chooses and not chosen.alike:
        expected = f"none, or one with the same blocks for all clients, {when}: masks vanish only together"
        yield InputError("client_selection.selector", chosen.name_of("selector"), expected)
    for place, own in enumerate(config.client_steps):
        field, name = f"client_steps.{place}", own.name_of("kind")
        if compresses(own.step):
            yield InputError(field, name, f"none that compresses {when}: masked numbers are uniform")
        if does(own.step, "server_half"):
            expected = f"a step that sends nothing beside the change {when}, since only that is masked"
            yield InputError(field, name, expected)


def _other_rule(config: RunConfig, expected: str) -> Iterator[InputError]:
    if type(config.aggregation.rule) is not Mean:
        yield InputError("aggregation.rule", config.rule_name, expected)


def _selector(config: RunConfig, expected: str) -> Iterator[InputError]:
    if asked := sorted(config.selection.selector.asked() & set(OF_CLIENTS)):
        field, value = config.ranked_by
        alone = "excess (Eq. 1), l2_per_parameter and relative_change need the aggregate alone."
        fix = f"{value} asks for {' and '.join(asked)}. {alone}"
        yield InputError(field, value, expected, fix)


def _sees_clients(step: ClientStep) -> bool:
    return step.needs_each or (does(step, "server_half") and step.sees_clients)
