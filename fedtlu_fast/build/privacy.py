"""Builds what differential privacy needs of a run: its noise, its step, and the account of its cost."""

from __future__ import annotations

from collections.abc import Sequence

from fedtlu_fast.config import RunConfig
from fedtlu_fast.config.private_fits import drawn
from fedtlu_fast.errors import InputError
from fedtlu_fast.participation import Poisson
from fedtlu_fast.privacy.budget import Account
from fedtlu_fast.privacy.release import Release
from fedtlu_fast.simulation.callbacks import Callback, EarlyStopping, Observer, SaveBest


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
    config.privacy.check_range(config.cohort, drawn(config))
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


def check_callbacks(private: bool, callbacks: Sequence[Callback | Observer]) -> None:
    """Checks that no callback of ours ends a private run, or keeps a model, by what has no noise.

    Args:
        private: whether the run has differential privacy.
        callbacks: those that the user gave; what functions and subclasses do is not known.

    Raises:
        InputError: one looks at another figure than those of the global test.
    """
    for one in callbacks if private else ():
        if isinstance(one, EarlyStopping | SaveBest) and not one.metric.startswith("test_"):
            expected = "a figure of the global test with differential privacy: the clients' have no noise"
            raise InputError("callbacks", f"{type(one).__name__}({one.metric!r})", expected)


def _release(config: RunConfig, noise_multiplier: float) -> Release:
    poisson = isinstance(config.participation.sampler, Poisson)
    return Release(noise_multiplier, config.clients, config.cohort, poisson)
