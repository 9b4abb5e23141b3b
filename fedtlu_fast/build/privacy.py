"""Builds what differential privacy needs of a run: its noise, its step, and the account of its cost."""

from __future__ import annotations

from fedtlu_fast.config import RunConfig
from fedtlu_fast.participation import Poisson
from fedtlu_fast.privacy.budget import Account
from fedtlu_fast.privacy.release import Release


def with_noise(config: RunConfig) -> RunConfig:
    """Returns the settings with the noise multiplier that keeps the budget over all rounds, if none is given.

    Raises:
        InputError: the rounds cost more than the budget with the noise that is given, or the accountant does
            not know their kind of sampling.
    """
    given = config.privacy
    if not given.on:
        return config
    noise = given.noise_multiplier
    release = _release(config, noise or 0.0)
    given.accountant.check(release)
    if noise is None and given.epsilon is not None:
        noise = given.accountant.noise_multiplier(given.epsilon, release, config.rounds, given.delta)
        config = config.model_copy(update={"privacy": given.model_copy(update={"noise_multiplier": noise})})
    account = account_of(config)
    if account is not None:
        account.check(config.rounds)
    return config


def account_of(config: RunConfig) -> Account | None:
    """Returns the account of a run's privacy; None without differential privacy."""
    given = config.privacy
    if given.noise_multiplier is None:
        return None
    release = _release(config, given.noise_multiplier)
    return Account(given.accountant, release, given.delta, given.epsilon)


def _release(config: RunConfig, noise_multiplier: float) -> Release:
    poisson = isinstance(config.participation.sampler, Poisson)
    return Release(noise_multiplier, config.clients, config.cohort, poisson)
