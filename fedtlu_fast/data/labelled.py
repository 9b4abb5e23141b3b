"""Helpers for samples with a label each: they number the labels' names and draw a test part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from fedtlu_fast.data.dealing import Attribute
from fedtlu_fast.data.population import Indices
from fedtlu_fast.errors import InputError
from fedtlu_fast.randomness import generator

Attributes = Mapping[str, Attribute]
"""The samples' attributes by name, such as ``label`` and ``domain``; ``label`` is the first."""


def by_name(values: Sequence[str], names: Sequence[str] | None = None) -> Attribute:
    """Makes an attribute from the name of each sample's value.

    Args:
        values: [N], the name of every sample's value.
        names: all names that may occur, in the order of their codes; None: the names in `values`, sorted.
    """
    known = tuple(sorted(set(values)) if names is None else names)
    codes = {name: code for code, name in enumerate(known)}
    return Attribute(np.array([codes[value] for value in values], np.int64), known)


def take(attributes: Attributes, rows: Indices) -> dict[str, Attribute]:
    """Returns the attributes of the samples at the places `rows`."""
    return {name: replace(own, codes=own.codes[rows]) for name, own in attributes.items()}


def check_labels(attributes: Attributes, source: str) -> Attribute:
    """Returns the attribute ``label`` after checking that it has two names or more.

    Args:
        attributes: the attributes of the training samples.
        source: the source as settings write it, for the message.

    Raises:
        InputError: all samples have one label.
    """
    label = attributes["label"]
    if len(label.names) < 2:
        raise InputError("data.source", source, f"two labels or more; all are {label.names}")
    return label


def drawn_test(attributes: Attributes, test_fraction: float) -> tuple[Indices, Indices]:
    """Draws the samples that are kept for the test.

    The same share is drawn from every kind of samples (samples with the same attributes). The draw does not
    depend on the run's seed, so that runs of all seeds have the same test. The share holds for all samples
    together: the fractions of small kinds add up, and a kind gives one sample whenever the sum reaches a
        whole number.

    Args:
        attributes: the attributes of the samples.
        test_fraction: share of the samples that is kept for the test, in (0, 1).

    Returns:
        The places of the training samples and the places of the test samples, each ascending.

    Raises:
        InputError: one of the two parts would be empty.
    """
    count = len(next(iter(attributes.values())).codes)
    order = generator(0, "test samples").permutation(count)
    for own in reversed(list(attributes.values())):
        order = order[np.argsort(own.codes[order], kind="stable")]
    # `order` lists the samples kind by kind. A sample is kept where the running share reaches a whole number.
    reached = (np.arange(1, count + 1) * test_fraction).astype(np.int64)
    kept = np.diff(reached, prepend=0) > 0
    if not kept.any() or kept.all():
        expected = f"a share of {count} samples that is neither none nor all of them"
        raise InputError("data.test_fraction", test_fraction, expected)
    return np.sort(order[~kept]), np.sort(order[kept])
