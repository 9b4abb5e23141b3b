"""Samples with a label each: how some are kept for the test, and how names become numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import generator

Attributes = Mapping[str, Attribute]
"""What is known of samples, by name; ``label`` is the first."""


def by_name(values: Sequence[str], names: Sequence[str] | None = None) -> Attribute:
    """An attribute of values given by name.

    Args:
        values: of every sample.
        names: all that there may be, in the order of their codes; None: those that occur, sorted.
    """
    known = tuple(sorted(set(values)) if names is None else names)
    codes = {name: code for code, name in enumerate(known)}
    return Attribute(np.array([codes[value] for value in values], np.int64), known)


def take(attributes: Attributes, rows: Indices) -> dict[str, Attribute]:
    """The attributes of some of the samples."""
    return {name: replace(own, codes=own.codes[rows]) for name, own in attributes.items()}


def check_labels(attributes: Attributes, source: str) -> Attribute:
    """The labels, of which there have to be two or more.

    Args:
        attributes: of the training samples.
        source: they are from, for the message.

    Raises:
        InputError: all samples have one label.
    """
    label = attributes["label"]
    if len(label.names) < 2:
        raise InputError("data.source", source, f"two labels or more; all are {label.names}")
    return label


def drawn_test(attributes: Attributes, test_fraction: float) -> tuple[Indices, Indices]:
    """Which samples to train on, and which are kept for the test, ascending both.

    Of samples with the same attributes a share each. Which ones is drawn once and for all: runs of every
    seed are tested on the same. The share is right for the whole: few samples of a kind give none, or now
    and then one, as the shares of those before them add up.

    Raises:
        InputError: so few samples, or such a share, that nothing is left on one side.
    """
    count = len(next(iter(attributes.values())).codes)
    order = generator(0, "test samples").permutation(count)
    for own in reversed(list(attributes.values())):
        order = order[np.argsort(own.codes[order], kind="stable")]
    # Of samples of one kind in a row, those at which the share reaches the next whole number.
    reached = (np.arange(1, count + 1) * test_fraction).astype(np.int64)
    kept = np.diff(reached, prepend=0) > 0
    if not kept.any() or kept.all():
        expected = f"a share of {count} samples that is neither none nor all of them"
        raise InputError("data.test_fraction", test_fraction, expected)
    return np.sort(order[~kept]), np.sort(order[kept])
