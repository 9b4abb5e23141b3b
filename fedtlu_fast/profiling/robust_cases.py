"""Makes the cases of robust rules: the middle values of every column of K clients, and their distances.

The clients are float32, whatever the dtype of the change, as they are in a run.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fedtlu_fast.ops import stacks
from fedtlu_fast.profiling.accuracy import Accuracy, element_error, in_parts
from fedtlu_fast.profiling.bandwidth import Traffic
from fedtlu_fast.profiling.cases import OURS, Case, Subject
from fedtlu_fast.profiling.robust_rivals import Rivals, distance_rivals, mean_rivals
from fedtlu_fast.profiling.shapes import random_clients


def median_case(subject: Subject) -> Case:
    """Makes the case of the median of every column: it reads K * P, writes P."""
    return _sorted_case(subject, (subject.clients - 1) // 2)


def trimmed_case(subject: Subject) -> Case:
    """Makes the case of the mean without a tenth of the values at each end: it reads K * P, writes P."""
    return _sorted_case(subject, subject.clients // 10)


def _sorted_case(subject: Subject, first: int) -> Case:
    clients = random_clients(subject.change.float(), subject.clients)
    last = subject.clients - first
    out = torch.empty_like(clients[0])
    exact = torch.empty(len(out), dtype=torch.float64, device=out.device)
    start = 0
    for part in in_parts(out):
        columns = slice(start, start + len(part))
        middle = clients[:, columns].sort(dim=0).values[first:last]
        exact[columns] = middle.double().mean(dim=0)
        start += len(part)

    def ours(backend: str) -> Tensor:
        return stacks.sorted_mean(clients, first, last, out=out, backend=backend)

    methods: Rivals = {OURS + name: partial(ours, name) for name in subject.backends}
    methods |= mean_rivals(clients, first, last, subject.layout, subject.tell)
    accuracy = {name: Accuracy(element_error(method(), exact)) for name, method in methods.items()}
    moved = Traffic(clients.numel() * 4, out.numel() * 4)
    return Case(dict(methods), accuracy, moved)


def distances_case(subject: Subject) -> Case:
    """Makes the case of Krum's squared distances of every two clients: it reads K * P."""
    clients = random_clients(subject.change.float(), subject.clients)
    exact = torch.zeros(subject.clients, subject.clients, dtype=torch.float64)
    for row, client in enumerate(clients):
        for other in range(row):
            parts = zip(in_parts(client), in_parts(clients[other]), strict=True)
            total = sum(float((one.double() - two.double()).square().sum()) for one, two in parts)
            exact[row, other] = exact[other, row] = total
    methods: Rivals = {
        OURS + name: partial(stacks.squared_distances, clients, name) for name in subject.backends
    }
    methods |= distance_rivals(clients, subject.tell)
    accuracy = {
        name: Accuracy(element_error(method().cpu().reshape(-1), exact.reshape(-1)))
        for name, method in methods.items()
    }
    return Case(dict(methods), accuracy, Traffic(clients.numel() * 4, 0))
