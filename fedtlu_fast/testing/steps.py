"""The checks of a client step."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from fedtlu_fast.client_steps import ClientStep, ClientSteps, RoundChange, RunFacts
from fedtlu_fast.client_steps.client_round import StepMemories
from fedtlu_fast.clients.trainer import ClientUpdate
from fedtlu_fast.data.population import Samples
from fedtlu_fast.errors import FedtluError, cause
from fedtlu_fast.part_memory import Memory
from fedtlu_fast.parts import make
from fedtlu_fast.randomness import generator
from fedtlu_fast.registry import find, names
from fedtlu_fast.testing.common import CLIENTS, LAYOUT, ConformanceError, bits, found_again, must, same

ROUNDS = 3
FACTS = RunFacts(LAYOUT, clients=CLIENTS, lr=0.1, proximal_mu=0.1, tokens=7, labels=3)


class Outcome(NamedTuple):
    """What rounds under a step come to.

    Attributes:
        sent: the vectors that reach the rule, in order.
        changes: the aggregated changes after the step's half on the server.
        memory: what the step remembers in the end.
    """

    sent: list[Tensor]
    changes: list[Tensor]
    memory: Memory


def check_client_step(step: str | ClientStep) -> None:
    """Checks a client step over some rounds with a fixed training.

    Its hooks return what they must and change neither the global model, nor the start, nor the update, nor
    what is remembered; all of it is the same bits every time. What it remembers can be saved. An update that
    is NaN raises nothing. The bytes of its messages are whole numbers. The step survives pickling, and is
    found again by its name.

    Args:
        step: a step, or the name of one (of kind ``client_step`` or ``threat``).

    Raises:
        ConformanceError: a promise is broken.
        InputError: there is no such step, or it does not fit a run with SGD and a proximal term.
    """
    kind = _kind(step)
    given: Any = find(kind, step, "client_steps") if isinstance(step, str) else step
    made: ClientStep = make(given, {}) if inspect.isclass(given) else given
    must(isinstance(made, ClientStep), f"{type(made).__name__} is no subclass of ClientStep")
    first, again = _rounds(made), _rounds(made)
    _compare(first, again, "the second time")
    _compare(_rounds(found_again(kind, made)), first, "the step that is found again by its name")
    _rounds(made, spoilt=True)
    counts = ClientSteps([made], FACTS)
    for blocks in ((), (0,), tuple(range(len(LAYOUT.blocks)))):
        with _named(f"message_bytes() of the blocks {blocks}"):
            counts.message_bytes(0, blocks)


def _kind(step: str | ClientStep) -> str:
    """Of a name that only threats have, threat."""
    known = step if isinstance(step, str) else ""
    place = known or f"{type(step).__module__}:{type(step).__qualname__}"
    return "threat" if known in names("threat") or place in names("threat").values() else "client_step"


def _rounds(step: ClientStep, spoilt: bool = False) -> Outcome:
    """Some rounds, in each of which all clients but one train.

    Args:
        step: the only step.
        spoilt: whether the first client's training gives NaN.
    """
    steps = ClientSteps([step], FACTS)
    draws = generator(0, "conformance step")
    params = torch.from_numpy(draws.normal(0, 1, LAYOUT.size)).float()
    memory: Memory = {}
    sent: list[Tensor] = []
    changes: list[Tensor] = []
    for index in range(1, ROUNDS + 1):
        cohort = [client for client in range(CLIENTS) if client != index % CLIENTS]
        news: dict[int, StepMemories] = {}
        arrived: list[tuple[float, Tensor]] = []
        server_round = steps.on_server((params, torch.empty(0)), index, cohort, memory)
        for client in cohort:
            training = torch.from_numpy(draws.normal(0.05, 0.1, LAYOUT.size)).float()
            if spoilt and client == cohort[0]:
                training[:] = torch.nan
            update, own = _client(steps, params, index, client, memory, training)
            news[client] = own
            sent.append(update.params.clone())
            if bool(torch.isfinite(update.params).all()):
                arrived.append((update.counts, update.params - params))
        total = sum(weight for weight, _ in arrived)
        change = sum((weight / total * own for weight, own in arrived), torch.zeros_like(params))
        with _named(f"round {index}, the server's half"):
            given = RoundChange(change, torch.empty(0), empty=not arrived, weight=total)
            aggregated = server_round.complete(given, news)
            memory = server_round.remembered(memory, news)
        right = isinstance(aggregated, RoundChange) and aggregated.change.shape == params.shape
        must(right, "complete() has to return the RoundChange, with a change of the same shape")
        changes.append(aggregated.change.clone())
        params = params + aggregated.change.nan_to_num()
    return Outcome(sent, changes, memory)


def _client(
    steps: ClientSteps, params: Tensor, index: int, client: int, memory: Memory, training: Tensor
) -> tuple[ClientUpdate, Mapping[str, Any]]:
    """One client's round with the step, whose training adds a fixed vector."""
    what = f"round {index}, client {client}"
    given, empty, known = params.clone(), torch.empty(0), bits(steps.memories(memory, client))
    samples = Samples((torch.arange(12).reshape(4, 3) % 7, torch.arange(12).reshape(4, 3) % 3), np.arange(4))
    held = steps.memories(memory, client)
    client_round = steps.on_client(
        (given, empty), index, client, memory=held, broadcast=steps.broadcast(memory)
    )
    with _named(what):
        start = client_round.before_training(samples)
        begin = start.params.clone()
        trained = start.params + training
        second = None if start.second is None else (start.second.params + training, empty)
        update = ClientUpdate(trained, empty, len(start.samples), 2, 0.5, second=second)
        sent = client_round.after_training(update)
    must(same(given, params), f"{what}: the step changed the global parameters")
    must(same(start.params, begin), f"{what}: the step changed what training starts from")
    must(same(trained, begin + training), f"{what}: the step changed the update in place; return another one")
    must(bits(held) == known, f"{what}: the step changed its memory in place; return it with the update")
    return replace(sent, memory={}), client_round.memory


def _compare(one: Outcome, other: Outcome, what: str) -> None:
    must(all(map(same, one.sent, other.sent)), f"{what}, clients send other vectors")
    must(all(map(same, one.changes, other.changes)), f"{what}, the server makes another change")
    must(_plain(one.memory) == _plain(other.memory), f"{what}, it remembers something else")


def _plain(memory: Memory) -> dict[str, bytes]:
    """Everything that is remembered, by name."""
    found: dict[str, bytes] = {}
    for part, held in memory.items():
        found |= {f"{part}.{name}": tensor.numpy().tobytes() for name, tensor in held.server.items()}
        for name, values in held.clients.items():
            found |= {
                f"{part}.{name}.{client}": np.asarray(value).tobytes() for client, value in values.items()
            }
    return found


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Inside, what the step raises is a broken promise."""
    try:
        yield
    except ConformanceError:
        raise
    except Exception as error:
        text = str(error) if isinstance(error, FedtluError) else cause(error)
        raise ConformanceError(f"{what}: the step raised {text}") from error
