"""Makes the cases of robust rules: the middle values of every column of K clients, and their distances.

The clients are float32, whatever the dtype of the change, as they are in a run.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from fedtlu_fast.aggregation.krum import krum_scores, lowest
from fedtlu_fast.aggregation.stack import Stack
from fedtlu_fast.ops import stacks
from fedtlu_fast.profiling.accuracy import Accuracy, element_error, in_parts
from fedtlu_fast.profiling.bandwidth import Traffic
from fedtlu_fast.profiling.cases import OURS, Case, Subject
from fedtlu_fast.profiling.robust_rivals import Rivals, distance_rivals, krum_rivals, mean_rivals
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
    exact = _exact_distances(clients)
    methods: Rivals = {
        OURS + name: partial(stacks.squared_distances, clients, name) for name in subject.backends
    }
    methods |= distance_rivals(clients, subject.tell)
    accuracy = {
        name: Accuracy(element_error(method().cpu().reshape(-1), exact.reshape(-1)))
        for name, method in methods.items()
    }
    return Case(dict(methods), accuracy, Traffic(clients.numel() * 4, 0))


def krum_case(subject: Subject) -> Case:
    """Makes the case of Krum's choice of one client: it reads K * P."""
    count = subject.clients
    clients = random_clients(subject.change.float(), count)
    # Rotations of one vector would have equal distances, and rounding would choose among them.
    clients *= torch.linspace(0.9, 1.1, count, device=clients.device)[:, None]
    stack = Stack(torch.zeros_like(clients[0]), count)
    for client in clients:
        stack.add_(client)
    tolerated = max(0, min(count // 5, (count - 3) // 2))
    exact = clients[krum_scores(_exact_distances(clients), tolerated).argmin()].double()

    def ours(backend: str) -> Tensor:
        return stack.row(lowest(stack, tolerated, 1, backend)[0])

    methods: Rivals = {OURS + name: partial(ours, name) for name in subject.backends}
    methods |= krum_rivals(clients, tolerated, subject.layout, subject.tell)
    accuracy = {name: Accuracy(element_error(method(), exact)) for name, method in methods.items()}
    return Case(dict(methods), accuracy, Traffic(clients.numel() * 4, 0))


def _exact_distances(clients: Tensor) -> Tensor:
    """Computes the squared distances of clients [K, P], as [K, K] float64 on the CPU."""
    exact = torch.zeros(len(clients), len(clients), dtype=torch.float64)
    for row, client in enumerate(clients):
        for other in range(row):
            parts = zip(in_parts(client), in_parts(clients[other]), strict=True)
            total = sum(float((one.double() - two.double()).square().sum()) for one, two in parts)
            exact[row, other] = exact[other, row] = total
    return exact
