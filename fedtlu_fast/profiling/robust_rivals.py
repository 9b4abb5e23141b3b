"""Holds other ways to compute what robust aggregation rules need (see `robust_cases`)."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.profiling.rivals import FLOWER_MODULE, LeftOutError, flower_results
from fedtlu_fast.profiling.shapes import fits

Rivals = dict[str, Callable[[], Tensor]]

FLOWER_MEDIAN = "Flower aggregate_median"
FLOWER_TRIMMED = "Flower aggregate_trimmed_avg"
FLOWER_KRUM = "Flower aggregate_krum"
LARGEST = 2**28
"""With more numbers in all clients, these ways take minutes."""

Tell = Callable[[str], None]


def mean_rivals(clients: Tensor, first: int, last: int, layout: ParameterLayout, tell: Tell) -> Rivals:
    """Returns rivals for the mean of the sorted values number `first` to ``last - 1`` of every column.

    Args:
        clients: [K, P] float32.
        first: the first place.
        last: the place behind the last one; ``first + last`` is K.
        layout: the layout of the layers.
        tell: called with the reason why a rival is left out.
    """
    if _too_many(clients, tell):
        return {}
    found: Rivals = {"torch sort": lambda: clients.sort(dim=0).values[first:last].mean(dim=0)}
    median = last - first <= 2
    if clients.device.type == "cpu":
        array = clients.numpy()
        if median:
            found["numpy median"] = lambda: torch.from_numpy(np.median(array, axis=0))
        else:
            found["numpy sort"] = lambda: torch.from_numpy(np.sort(array, axis=0)[first:last].mean(axis=0))
    try:
        results = flower_results(clients, [1] * len(clients), layout)
        module = import_module(FLOWER_MODULE)
        if median:
            found[FLOWER_MEDIAN] = lambda: _whole(module.aggregate_median(results))
        else:
            share = first / len(clients)
            found[FLOWER_TRIMMED] = lambda: _whole(module.aggregate_trimmed_avg(results, share))
    except LeftOutError as reason:
        tell(f"{FLOWER_MEDIAN if median else FLOWER_TRIMMED}: left out, {reason}")
    return found


def distance_rivals(clients: Tensor, tell: Tell) -> Rivals:
    """Returns rivals for the squared distances of every two clients, [K, K], of clients [K, P] float32."""
    if _too_many(clients, tell):
        return {}
    found: Rivals = {
        "torch cdist": lambda: torch.cdist(clients, clients).square(),
        "torch pdist, float64": lambda: _square(torch.pdist(clients.double()).square(), len(clients)),
    }
    if clients.device.type == "cpu":
        rows = clients.numpy()

        def by_loop() -> Tensor:
            norms = [[float(np.linalg.norm(one - other)) ** 2 for other in rows] for one in rows]
            return torch.tensor(norms, dtype=torch.float64)

        found["numpy loop"] = by_loop
    return found


def krum_rivals(clients: Tensor, tolerated: int, layout: ParameterLayout, tell: Tell) -> Rivals:
    """Returns rivals for Krum's choice among clients [K, P] float32: its vector [P].

    Args:
        clients: the clients' vectors.
        tolerated: f, the number of clients that may be malicious.
        layout: the layout of the layers.
        tell: called with the reason why a rival is left out.
    """
    if _too_many(clients, tell):
        return {}
    nearest = max(1, len(clients) - tolerated - 2)

    def by_cdist() -> Tensor:
        distances = torch.cdist(clients, clients).square().fill_diagonal_(torch.inf)
        return clients[distances.sort(dim=1).values[:, :nearest].sum(dim=1).argmin()]

    found: Rivals = {"torch cdist": by_cdist}
    try:
        results = flower_results(clients, [1] * len(clients), layout)
        module = import_module(FLOWER_MODULE)
        found[FLOWER_KRUM] = lambda: _whole(module.aggregate_krum(results, tolerated, 0))
    except LeftOutError as reason:
        tell(f"{FLOWER_KRUM}: left out, {reason}")
    return found


def _square(pairs: Tensor, count: int) -> Tensor:
    places = torch.triu_indices(count, count, 1)
    whole = pairs.new_zeros(count, count)
    whole[places[0], places[1]] = pairs
    return whole + whole.T


def _whole(parts: list[np.ndarray]) -> Tensor:
    return torch.cat([torch.from_numpy(np.asarray(part)).reshape(-1) for part in parts])


def _too_many(clients: Tensor, tell: Tell) -> bool:
    room = fits(5 * clients.numel() * clients.element_size(), clients.device.type)
    if clients.numel() <= LARGEST and room:
        return False
    why = "sorting them takes minutes" if room else "their copies would not fit"
    tell(f"rivals of robust rules: left out for {clients.numel():,} numbers, {why}")
    return True
