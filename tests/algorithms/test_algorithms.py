"""Algorithms compared with their papers, on clients with quadratic losses, whose steps have a closed form."""

from contextlib import closing
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import nn

from fedtlu_fast import Datasets, Federation, InputError, Local, SupervisedTask
from fedtlu_fast.algorithms import Ditto, FedDyn, FedNova, Scaffold
from fedtlu_fast.algorithms.fednova import length_of
from fedtlu_fast.build.executor import make_executor
from fedtlu_fast.build.parts import make_parts
from fedtlu_fast.build.server import make_server
from fedtlu_fast.client_steps import ClientSteps, RunFacts
from fedtlu_fast.clients.optimizer import Sgd
from fedtlu_fast.simulation.round import run_round
from fedtlu_fast.simulation.server import initial_state

CURVES = np.array([[1.0, 0.5], [2.0, 1.5], [0.5, 3.0]])
CENTRES = np.array([[1.0, -1.0], [-2.0, 0.5], [0.5, 2.0]])
SAMPLES = [1, 4, 2]
LR, START = 0.1, np.array([0.3, -0.2])


class Point(nn.Module):
    """A model of two numbers; each client's loss has its minimum at another point."""

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.tensor(START, dtype=torch.float32))

    def forward(self):
        return self.at


def parabola(model, batch):
    curves, centres = batch
    return (0.5 * curves * (model() - centres) ** 2).sum(dim=1)


def gradient(client, at):
    return CURVES[client] * (at - CENTRES[client])


def held():
    train = [
        (
            torch.tensor(CURVES[k], dtype=torch.float32).repeat(n, 1),
            torch.tensor(CENTRES[k]).float().repeat(n, 1),
        )
        for k, n in enumerate(SAMPLES)
    ]
    return Datasets(train=train, test=train[0])


class Rounds:
    """Runs rounds of three clients, two of which train in each."""

    def __init__(self, step, executor="serial", momentum=0.0, **local):
        how = Local(Sgd(LR, momentum), epochs=1.0, batch_size=1, clip_norm=None, **local)
        execution = {
            "executor": executor,
            **({"clients_per_batch": 2} if executor == "vectorized" else {"workers": 2}),
        }
        fed = Federation(
            SupervisedTask(Point(), parabola),
            held(),
            cohort=2,
            local=how,
            selection="full",
            executor=executor,
            settings={"execution": execution},
        )
        config = fed.config(4)
        parts = make_parts(config)
        trainer, layout = parts.trainer, parts.trainer.layout
        facts = RunFacts(
            layout,
            config.seed,
            config.clients,
            LR,
            momentum,
            how.proximal_mu,
        )
        self.steps = ClientSteps([step], facts)
        self.state = initial_state(layout, trainer.task.model)
        self.executor = make_executor(config, parts.population, trainer, self.steps)
        self.server = make_server(config, layout, parts.population, trainer, self.executor, self.steps)

    def tested(self, client):
        """Returns the parameters with which a client is tested."""
        vectors = self.state.params, self.state.buffers
        return self.steps.tested_model(vectors, 5, client, self.state.memory)[0].double().numpy()

    def run(self, rounds=4):
        """Returns the cohort of each round and the parameters after it."""
        found = []
        with closing(self.executor):
            for _ in range(rounds):
                self.state, record = run_round(self.server, self.state)
                found.append((record.cohort, self.state.params.double().numpy()))
        return found


@dataclass
class Paper:
    """The algorithms as their papers write them, in float64."""

    at: np.ndarray = field(default_factory=START.copy)
    server: np.ndarray = field(default_factory=lambda: np.zeros(2))
    own: np.ndarray = field(default_factory=lambda: np.zeros((3, 2)))

    def local(self, client, correction=0.0, mu=0.0, momentum=0.0):
        y, velocity = self.at.copy(), np.zeros(2)
        for _ in range(SAMPLES[client]):
            velocity = momentum * velocity + gradient(client, y) + correction + mu * (y - self.at)
            y = y - LR * velocity
        return y

    def scaffold(self, cohort):
        moved, controls = np.zeros(2), np.zeros(2)
        for client in cohort:
            y = self.local(client, self.server - self.own[client])
            new = self.own[client] - self.server + (self.at - y) / (SAMPLES[client] * LR)
            moved += (y - self.at) / len(cohort)
            controls += (new - self.own[client]) / 3
            self.own[client] = new
        self.at, self.server = self.at + moved, self.server + controls

    def feddyn(self, cohort, alpha):
        ends = []
        for client in cohort:
            y = self.local(client, -self.own[client], alpha)
            self.own[client] = self.own[client] - alpha * (y - self.at)
            ends.append(y)
        self.server = self.server - alpha / 3 * sum(y - self.at for y in ends)
        self.at = np.mean(ends, axis=0) - self.server / alpha

    def ditto(self, cohort, lam):
        ends = {}
        for client in cohort:
            ends[client] = self.local(client)
            v = self.at.copy() if np.isnan(self.own[client]).any() else self.own[client].copy()
            for _ in range(SAMPLES[client]):
                v = v - LR * (gradient(client, v) + lam * (v - self.at))
            self.own[client] = v
        total = sum(SAMPLES[client] for client in cohort)
        self.at = sum(SAMPLES[client] / total * end for client, end in ends.items())

    def fednova(self, cohort, momentum=0.0, mu=0.0):
        total = sum(SAMPLES[client] for client in cohort)
        change, effective = np.zeros(2), 0.0
        for client in cohort:
            # The weights with which a client's gradients enter its change, from the first step to the last.
            weights, tau = np.zeros(SAMPLES[client]), SAMPLES[client]
            for step in range(tau):
                left = tau - step
                weights[step] = (
                    sum(momentum**k for k in range(left)) if not mu else (1 - LR * mu) ** (left - 1)
                )
            share = SAMPLES[client] / total
            change += share * (self.local(client, mu=mu, momentum=momentum) - self.at) / weights.sum()
            effective += share * weights.sum()
        self.at = self.at + effective * change


EXECUTORS = ["serial", "processes", "vectorized"]


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize(
    ("step", "local", "paper"),
    [
        (Scaffold(), {}, Paper.scaffold),
        (FedDyn(), {"proximal_mu": 0.5}, lambda paper, cohort: paper.feddyn(cohort, 0.5)),
        (FedNova(), {}, Paper.fednova),
        (FedNova(), {"momentum": 0.9}, lambda paper, cohort: paper.fednova(cohort, momentum=0.9)),
        (FedNova(), {"proximal_mu": 0.7}, lambda paper, cohort: paper.fednova(cohort, mu=0.7)),
    ],
    ids=["scaffold", "feddyn", "fednova", "fednova-momentum", "fednova-proximal"],
)
def test_every_round_is_the_paper_s(step, local, paper, executor):
    own = Paper()
    for cohort, params in Rounds(step, executor, **local).run():
        paper(own, cohort)
        np.testing.assert_allclose(params, own.at, rtol=2e-6, atol=2e-6)
    assert not np.allclose(own.at, START, atol=1e-2)


@pytest.mark.parametrize("executor", ["serial", "processes"])
def test_ditto_s_global_and_own_models_are_the_paper_s(executor):
    rounds, own = Rounds(Ditto(lam=0.5), executor), Paper(own=np.full((3, 2), np.nan))
    for cohort, params in rounds.run():
        own.ditto(cohort, 0.5)
        np.testing.assert_allclose(params, own.at, rtol=2e-6, atol=2e-6)
    tested = [rounds.tested(client) for client in range(3)]
    assert not np.isnan(own.own).any(), "every client has trained"
    np.testing.assert_allclose(tested, own.own, rtol=2e-6, atol=2e-6)
    assert not np.allclose(tested[0], own.at, atol=1e-2)


@pytest.mark.parametrize(
    ("step", "facts", "message"),
    [
        (Scaffold(), {"lr": 0.0}, r"training.optimizer: .*sgd: SCAFFOLD"),
        (Scaffold(), {"lr": 0.1, "momentum": 0.9}, r"training.momentum: got 0.9; expected 0"),
        (FedDyn(), {"lr": 0.1}, r"training.proximal_mu: .*alpha"),
        (FedNova(), {"lr": 0.0}, r"training.optimizer: .*sgd with FedNova"),
        (FedNova(), {"lr": 0.1, "momentum": 0.9, "proximal_mu": 0.1}, r"training.proximal_mu: got 0.1"),
    ],
)
def test_local_training_outside_the_papers_is_refused(step, facts, message):
    with pytest.raises(InputError, match=message):
        ClientSteps([step], RunFacts(None, clients=3, **facts))


def test_the_length_of_a_training_counts_its_steps():
    assert length_of(5, 0.1, 0.0, 0.0) == 5
    assert length_of(1, 0.1, 0.9, 0.0) == pytest.approx(1)
    assert length_of(2, 0.1, 0.9, 0.0) == pytest.approx(1 + 1.9)
    assert length_of(2, 0.1, 0.0, 2.0) == pytest.approx(1 + 0.8)
