"""What parts remember is checked in the round in which they give it, and resumes to the same bits."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import fedtlu_fast as ft
from fedtlu_fast.client_steps import ClientStep, ClientSteps, RunFacts, ServerHalf
from fedtlu_fast.errors import FedtluError
from fedtlu_fast.part_memory import PartMemory
from fedtlu_fast.remembered import client_values, server_tensors


class Stop(ft.Callback):
    def on_round_start(self, run):
        if run.round == 3:
            raise KeyboardInterrupt


def federation(**parts: Any) -> ft.Federation:
    torch.manual_seed(0)
    samples = [(torch.randn(8, 4), torch.randint(3, (8,))) for _ in range(3)]
    layers = [nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3)]
    task = ft.SupervisedTask(nn.Sequential(*layers, nn.Linear(4, 3)), nn.functional.cross_entropy)
    return ft.Federation(
        task,
        ft.Datasets(train=samples, test=samples[0]),
        cohort=3,
        keep=1,
        executor="serial",
        local=ft.Local("sgd", lr=0.1, steps=1, batch_size=4),
        settings={"checkpoint": {"every": 1}},
        **parts,
    )


def step(values: Any, name: Any = "Own") -> ClientStep:
    """A step that remembers `values(client)` and moves its model by what it remembered before."""

    def after(self: Any, client: Any, update: Any) -> Any:
        moved = sum(float(np.sum(value)) for value in client.memory.values())
        return replace(update, params=update.params + 0.01 * moved, memory=values(client))

    made: ClientStep = dataclass(frozen=True)(type("Own", (ClientStep,), {"after": after, "name": name}))()
    return made


@dataclass(frozen=True)
class Half(ClientStep):
    """A step whose half on the server remembers what it is given."""

    kept: Any

    def server_half(self, server):
        return _Half(self.kept)


class _Half(ServerHalf):
    def __init__(self, kept):
        self.server = kept


@dataclass(frozen=True)
class Optimizer(ft.ServerOptimizer):
    """A server optimizer that remembers its steps under a name with a slash, or something else."""

    kept: str = "names"

    def step(self, change, state, offsets, mask):
        done = state.get("a/b", torch.zeros(1))
        wrong: dict[str, Any] = {"number": {"t": 3.0}, "list": [1], "sparse": {"t": change.to_sparse()}}
        return change * (1 + done), wrong.get(self.kept, {"a/b": done + 1})


def ends_alike(tmp_path, **parts):
    """Runs to the end, and again with a stop; returns whether the results agree, and the result."""
    whole = federation(**parts).run(4).summary["params_sha256"]
    with pytest.raises(FedtluError, match="after round 2 of 4"):
        federation(**parts).run(4, out=tmp_path / "out", callbacks=[Stop()])
    return federation(**parts).resume(tmp_path / "out").summary["params_sha256"] == whole, whole


@pytest.mark.parametrize(
    "values",
    [
        lambda client: {"server": client.round, "x/clients/y": 1.5},
        lambda client: {"a": 1 if client.number else 1.5},
        lambda client: {"a": np.arange(6, dtype=">f4").reshape(2, 3).T},
    ],
    ids=["names", "int and float", "byte order"],
)
def test_a_client_s_memory_resumes_to_the_same_bits(tmp_path, values):
    same, found = ends_alike(tmp_path, client_steps=[step(values)])
    assert same
    assert found != federation().run(4).summary["params_sha256"], "the memory counts"


def test_a_server_s_memory_resumes_to_the_same_bits(tmp_path):
    same, found = ends_alike(tmp_path, server_optimizer=Optimizer())
    assert same
    assert found != federation().run(4).summary["params_sha256"], "the memory counts"


@pytest.mark.parametrize("name", ["Selection", "ServerOptimizer", "Probes", "Participation", "Recycle"])
def test_a_step_with_the_name_of_another_part_keeps_its_memory(name):
    def found(name):
        counted = step(lambda client: {"a": client.memory.get("a", 0) + 1}, name)
        return federation(client_steps=[counted]).run(3).summary["params_sha256"]

    assert found(name) == found("Own")


@pytest.mark.parametrize("name", [5, None, "\ud800"])
def test_a_step_s_name_is_a_text(name):
    with pytest.raises(ft.InputError, match=r"client_steps: .*Own\.name: got .*; expected a text"):
        federation(client_steps=[step(lambda client: {}, name)]).run(1)


def test_the_names_of_steps_differ_whatever_they_are():
    layout = ft.ParameterLayout.from_module(nn.Linear(2, 2))
    steps = [step(dict, name) for name in ("A#2", "A", "A", "A")]
    assert ClientSteps(steps, RunFacts(layout)).names == ("A#2", "A", "A#3", "A#4")


def test_a_remembered_view_of_the_update_is_not_overwritten():
    class View(ClientStep):
        def after(self, client, update):
            return replace(update, memory={"a": update.params.numpy()})

    layout = ft.ParameterLayout.from_module(nn.Linear(2, 2))
    vectors = torch.zeros(layout.size), torch.empty(0)
    client_round = ClientSteps([View()], RunFacts(layout)).on_client(vectors, 1, 0)
    params = torch.ones(layout.size)
    client_round.after_training(ft.ClientUpdate(params, torch.empty(0), 2, 1, 0.5))
    params.zero_()
    assert np.array_equal(client_round.memory["View"]["a"], np.ones(layout.size, np.float32))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (lambda client: {"a": True}, r"memory\['a'\]: got True; .*Use int"),
        (lambda client: {"a": np.array(True)}, r"memory\['a'\]: got True; .*Use int"),
        (lambda client: {"a": np.longdouble(1)}, r"memory\['a'\]: .*checkpoints can hold"),
        (lambda client: {"a": np.ones(2, np.longdouble)}, r"memory\['a'\]: .*checkpoints can hold"),
        (lambda client: {"a": np.ones(2, complex)}, r"memory\['a'\]: .*complex128"),
        (lambda client: {"a": 2**63}, r"memory\['a'\]: .*checkpoints can hold"),
        (lambda client: {"a": torch.ones(2)}, r"memory\['a'\]: .*tensor\.cpu\(\)\.numpy\(\)"),
        (lambda client: {5: 1}, "memory: name: got 5; expected a text"),
        (lambda client: [1], r"memory: got \[1\]; expected a mapping"),
        (lambda client: {"a": np.ones(1 + client.number)}, "one shape and dtype for all clients; client"),
        (lambda client: {"a": np.ones(1, f"f{4 if client.number else 8}")}, "one shape and dtype for all"),
        (lambda client: {"a": 1 if client.number else np.ones(1)}, "one shape and dtype for all clients"),
    ],
)
def test_what_cannot_be_saved_of_clients_is_refused_in_the_first_round(values, message):
    with pytest.raises(FedtluError, match=f"client_steps.Own: .*{message}"):
        federation(client_steps=[step(values)]).run(1)


@pytest.mark.parametrize("kept", ["number", "list", "sparse"])
def test_what_cannot_be_saved_of_an_optimizer_is_refused_in_the_first_round(kept):
    with pytest.raises(ft.InputError, match=r"aggregation.server_optimizer: .*state.*tensor"):
        federation(server_optimizer=Optimizer(kept)).run(1)


@pytest.mark.parametrize(
    "kept", [{"x": 1.0}, {"x": np.ones(2)}, [1], {5: torch.ones(1)}, {"x": torch.ones(1, dtype=torch.cfloat)}]
)
def test_what_cannot_be_saved_of_a_server_half_is_refused_in_the_first_round(kept):
    steps = ClientSteps([Half(kept)], RunFacts(ft.ParameterLayout.from_module(nn.Linear(2, 2))))
    with pytest.raises(ft.InputError, match=r"client_steps.Half: server.*expected a"):
        steps.on_server((torch.zeros(6), torch.empty(0)), 1, (0,), {}).remembered({}, {})


def test_numbers_and_arrays_become_plain():
    given = {
        "b": np.float32(0.5),
        "a": np.array(3),
        "c": np.uint64(7),
        "d": np.asfortranarray(np.ones((2, 3))),
    }
    found = client_values("step", given)
    assert [(name, type(value)) for name, value in found.items()] == [
        ("a", int),
        ("b", float),
        ("c", int),
        ("d", np.ndarray),
    ]
    assert np.asarray(found["d"]).flags.c_contiguous


def test_tensors_become_contiguous_and_lose_their_gradients():
    given = {"b": torch.ones(2, 3).T, "a": nn.Parameter(torch.ones(2))}
    found = server_tensors("step", given)
    assert list(found) == ["a", "b"]
    assert found["b"].is_contiguous()
    assert not found["a"].requires_grad


def test_values_of_clients_ascend_and_an_int_beside_floats_is_a_float():
    held = PartMemory().with_clients({7: {"b": 1, "a": 1}}).with_clients({2: {"b": 2}, 9: {"b": 0.5}})
    assert str(held.clients) == "{'a': {7: 1}, 'b': {2: 2.0, 7: 1.0, 9: 0.5}}"
    assert str(held.with_clients({2: {"b": 3}}).clients["b"]) == "{2: 3.0, 7: 1.0, 9: 0.5}"
