"""Tests `Federation`, with the user's own model, data, loss and parts as objects."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from support.federations import left
from support.own_parts import Cautious, middle
from torch import nn

from fedtlu_fast import Callback, ClientStep, Datasets, Federation, InputError, Local, SupervisedTask
from fedtlu_fast.aggregation import Krum, Momentum, TrimmedMean
from fedtlu_fast.algorithms import Ditto
from fedtlu_fast.errors import ClientError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3))
        self.head = nn.Linear(6, 3)

    def forward(self, inputs):
        for block in self.blocks:
            inputs = inputs + block(inputs)
        return self.head(inputs)


def net(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net()


def held(clients=6, samples=20):
    draws = torch.Generator().manual_seed(1)

    def some(count):
        inputs = torch.randn(count, 6, generator=draws)
        return inputs, inputs[:, :3].argmax(dim=1)

    train = [some(samples + client) for client in range(clients)]
    return Datasets(train=train, test=some(60), held_out=[some(5) for _ in range(clients)])


def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs, targets)


def weighed_loss(outputs, targets):
    return 2 * nn.functional.cross_entropy(outputs, targets)


def federation(task=None, data=None, **over):
    given = {
        "cohort": 3,
        "keep": 1,
        "executor": "serial",
        "local": Local(lr=0.2, steps=3, batch_size=8),
    }
    return Federation(task or SupervisedTask(net(), loss), data or held(), **{**given, **over})


def test_it_learns_and_leaves_the_user_s_model_alone(tmp_path):
    model = net()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fed = federation(SupervisedTask(model, loss), server_lr=2.0, keep=3)
    first = fed.run(30)
    assert first.metrics[-1]["test_loss"] < 0.8 * first.metrics[0]["test_loss"]
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    again = fed.run(30, tmp_path / "out")
    assert again.summary["params_sha256"] == first.summary["params_sha256"]
    assert first.summary["groups"] == {"blocks.*": ["blocks.0", "blocks.1", "blocks.2"]}
    assert (tmp_path / "out" / "report.html").exists()


def test_the_executors_agree():
    own = {"aggregation": Cautious(0.5), "selection": "random"}
    serial = federation(**own).run(3).params
    for workers in (1, 2):
        several = federation(executor="processes", workers=workers, **own).run(3)
        assert torch.equal(several.params, serial)
    mean = federation().run(3).params
    vectorized = federation(executor="vectorized").run(3).params
    torch.testing.assert_close(vectorized, mean, rtol=1e-4, atol=1e-5)
    with pytest.raises(InputError, match=r"aggregation.rule: .*Cautious"):
        federation(executor="vectorized", **own).run(1)


def test_names_dotted_names_functions_and_objects_are_the_same_parts():
    for one, other in (("krum", Krum()), ("support.own_parts:middle", middle)):
        found = [federation(aggregation=given, cohort=5).run(2).summary for given in (one, other)]
        assert found[0]["params_sha256"] == found[1]["params_sha256"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cohort": 7}, r"^cohort: got 7; expected at most 6, the number of clients"),
        ({"aggregation": "krumm"}, r"^aggregation.rule: got 'krumm'. Did you mean krum"),
        ({"aggregation": Krum(3)}, r"^aggregation.byzantine: got 3; .*2 f \+ 2 < 3, the cohort"),
        ({"local": {"lr": 1}}, r"^local: got .*expected fedtlu_fast.Local"),
        ({"settings": {"evalation": {}}}, r"^evalation: .*Did you mean evaluation"),
        ({"executor": "threads"}, r"^execution.executor: got 'threads'"),
        ({"data": [1, 2]}, r"^data: got \[1, 2\]; expected fedtlu_fast.Datasets"),
        ({"settings": {"cohort": 4}}, r"^settings: cohort: got 4; .*the argument cohort, which is 3"),
        (
            {"selection": "random", "settings": {"selection": {"selector": "full"}}},
            r"^settings: selection.selector",
        ),
        (
            {"client_steps": Krum()},
            r"client_steps.*Krum'; expected a client step: an object of a subclass",
        ),
        ({"task": net()}, r"^task.model: got None; expected a task with a torch.nn.Module"),
    ],
)
def test_something_wrong_is_said_when_the_federation_is_made(given, message):
    with pytest.raises(InputError, match=message):
        federation(**given)


def test_other_settings_go_over_the_arguments():
    config = federation(settings={"evaluation": {"every": 5}, "aggregation": {"max_share": 0.5}}).config(10)
    assert (config.evaluation.every, config.aggregation.rule.max_share, config.rounds) == (5, 0.5, 10)


def cut_short(fed, out, after=3):
    def stop(row):
        if row["round"] == after:
            raise KeyboardInterrupt

    with pytest.raises(Exception, match="you can resume it with"):
        fed.run(6, out, callbacks=[stop])


def test_a_run_goes_on_to_the_same_bits_with_the_same_objects(tmp_path):
    fed = federation(aggregation=Cautious(0.5))
    whole = fed.run(6, tmp_path / "whole")
    cut_short(fed, tmp_path / "cut")
    resumed = federation(aggregation=Cautious(0.5)).resume(tmp_path / "cut")
    assert torch.equal(resumed.params, whole.params)
    assert left(tmp_path / "cut") == left(tmp_path / "whole")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"task": SupervisedTask(net(1), loss)}, r"this run's model \(its weights before round 1\)"),
        ({"task": SupervisedTask(net(), weighed_loss)}, "code of weighed_loss; they have changed"),
        ({"data": held(samples=21)}, "this run's data"),
        (
            {"aggregation": Cautious(0.25)},
            r"settings .*changed since \(aggregation.floor was 0.5 and is 0.25\)",
        ),
        ({"cohort": 2, "keep": 2}, r"changed since \(cohort was 3 and is 2, selection.keep was 1 and is 2\)"),
    ],
)
def test_a_run_is_not_resumed_with_other_objects(tmp_path, other, message):
    cut_short(federation(aggregation=Cautious(0.5)), tmp_path / "cut")
    given = {"aggregation": Cautious(0.5), **other}
    with pytest.raises(InputError, match=message):
        federation(**given).resume(tmp_path / "cut")


@dataclass(frozen=True)
class Odd(ClientStep):
    """Replaces each update by the result of `made`."""

    made: object

    def after(self, client, update):
        return self.made(update)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            lambda update: None,
            r"client_steps.Odd: after\(\): got None; expected the ClientUpdate that it returns",
        ),
        (lambda update: replace(update, weight=-1.0), r"client_steps.Odd: weight: got -1.0; .*from 0 on"),
        (lambda update: replace(update, weight=torch.tensor(2.0)), r"Odd: weight: .*Use float"),
        (
            lambda update: replace(update, params=update.params.numpy()),
            r"Odd: params: got 'ndarray of float32.*as it got",
        ),
        (lambda update: replace(update, params=update.params[1:]), r"Odd: params: got 'Tensor of torch.fl"),
        (lambda update: replace(update, memory=[1]), r"Odd: memory: got \[1\]; expected a mapping"),
        (lambda update: replace(update, memory={"a": update.params}), r"Odd: memory\['a'\]: .*NumPy array"),
        (lambda update: replace(update, memory={"a": [1, 2]}), r"Odd: memory\['a'\]: got \[1, 2\]"),
        (lambda update: replace(update, memory={"a": True}), r"Odd: memory\['a'\]: got True"),
    ],
)
def test_what_a_client_step_returns_is_checked_at_the_first_client(made, message):
    with pytest.raises(ClientError, match=message):
        federation(client_steps=[Odd(made)]).run(1)


def test_a_loss_without_a_gradient_is_an_error():
    def detached(outputs, targets):
        return nn.functional.cross_entropy(outputs.detach(), targets)

    with pytest.raises(ClientError, match=r"loss: .*it has no gradient"):
        federation(SupervisedTask(net(), detached)).run(1)


def test_a_score_that_is_no_number_is_an_error():
    def nowhere(change):
        return [float("nan")] * len(change.layout.blocks)

    with pytest.raises(InputError, match=r"nowhere'; expected a score that is a number for some block"):
        federation(selection=nowhere).run(1)


def test_a_method_that_looks_like_a_hook_is_refused():
    class Misspelt(Callback):
        def on_round_finish(self, run):
            raise AssertionError("called")

    with pytest.raises(InputError, match=r"Misspelt.on_round_finish'.*hooks of the names on_start"):
        federation().run(1, callbacks=[Misspelt()])


def test_a_callback_gets_a_copy_of_the_parameters():
    class Erase(Callback):
        def on_start(self, run):
            run.params.zero_()

        def on_round_end(self, run):
            assert bool(run.params.zero_().any()) is False
            assert bool(run.params.any())

    untouched = federation().run(2).summary["params_sha256"]
    assert federation().run(2, callbacks=[Erase()]).summary["params_sha256"] == untouched


class Gone:
    def __len__(self):
        return 3

    def __getitem__(self, index):
        raise OSError("gone")


def test_the_error_of_a_client_says_whether_anything_was_saved(tmp_path):
    whole = held()
    data = replace(whole, train=[Gone()] * 6)
    with pytest.raises(ClientError) as nothing:
        federation(data=data).run(1)
    assert "The run has no directory, so nothing was saved" in str(nothing.value)
    assert "resume=True" not in str(nothing.value)
    with pytest.raises(ClientError, match=r"Nothing of that round was kept.*resume=True"):
        federation(data=data).run(1, tmp_path / "out")


def test_a_callback_acts_by_methods_alone():
    class Assigning(Callback):
        def on_round_end(self, run):
            run.server_lr = 0.25

    with pytest.raises(InputError, match=r"run.server_lr: got 0.25; .*use set_server_lr"):
        federation().run(1, callbacks=[Assigning()])


STEPS = {
    "scaffold": {"clip_norm": None},
    "feddyn": {"proximal_mu": 0.1},
    "fednova": {"epochs": 1.0, "steps": None},
    "ditto:0.5": {},
}


@pytest.mark.parametrize("step", STEPS)
def test_an_algorithm_with_a_memory_goes_on_to_the_same_bits(tmp_path, step):
    how = Local(lr=0.2, batch_size=8, **{"steps": 3, **STEPS[step]})
    given = {"client_steps": [step], "local": how}
    whole = federation(executor="processes", workers=2, **given).run(6, tmp_path / "whole")
    cut_short(federation(**given), tmp_path / "cut")
    resumed = federation(**given).resume(tmp_path / "cut")
    assert torch.equal(resumed.params, whole.params)
    assert left(tmp_path / "cut") == left(tmp_path / "whole")
    plain = federation(local=how).run(6)
    key = "local_loss" if "ditto" in step else "params_sha256"
    assert plain.summary[key] != whole.summary[key]


def test_client_steps_are_names_dotted_names_and_objects():
    found = [
        federation(client_steps=[given]).config(3).client_steps[0].step
        for given in (
            "ditto:0.5",
            {"kind": "ditto", "lam": 0.5},
            Ditto(0.5),
            "fedtlu_fast.algorithms:Ditto:0.5",
        )
    ]
    assert found == [Ditto(0.5)] * 4
    assert federation(client_steps="ditto").config(3).client_steps[0].step == Ditto()
    written = federation(client_steps=[Ditto(0.5), "scaffold"]).config(3).model_dump(mode="json")
    assert written["client_steps"] == [{"kind": "ditto", "lam": 0.5}, {"kind": "scaffold"}]
    with pytest.raises(InputError, match=r"client_steps.*got 'scafold'. Did you mean scaffold"):
        federation(client_steps=["scafold"])


SCRIPT = """
import sys, torch
from dataclasses import dataclass
import fedtlu_fast as ft
from fedtlu_fast.aggregation import Mean, Aggregated

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(3))
        self.head = torch.nn.Linear(4, 2)
        self.drop = torch.nn.Dropout(0.1)
    def forward(self, x):
        for block in self.blocks:
            x = torch.tanh(block(x))
        return self.head(self.drop(x))

@dataclass(frozen=True)
class Halved(Mean):
    factor: float = 0.5
    share: torch.Tensor = torch.tensor(1.0)
    def finish(self, state):
        return Aggregated(self.factor * self.share * super().finish(state).change)

def largest(change):
    return change.stats.l2[: len(change.layout.blocks)]

if __name__ == "__main__":
    torch.manual_seed(0)
    draw = lambda n: (torch.randn(n, 4), torch.randint(2, (n,)))
    data = ft.Datasets(train=[draw(12) for _ in range(8)], test=draw(40))
    task = ft.SupervisedTask(Net(), torch.nn.functional.cross_entropy)
    own = {"aggregation": Halved(), "selection": largest}
    fed = ft.Federation(task, data, cohort=4, keep=1, executor="processes", workers=2, **own)
    out, resume = sys.argv[1], sys.argv[2:] == ["resume"]
    tell = lambda row: print(row["round"], flush=True)
    result = fed.resume(out, callbacks=[tell]) if resume else fed.run(40, out, callbacks=[tell])
    print(result.summary["params_sha256"])
"""


@pytest.mark.slow
def test_a_script_with_parts_of_its_own_is_killed_and_resumed_to_the_same_bits(tmp_path):
    script = tmp_path / "mine.py"
    script.write_text(SCRIPT, encoding="utf-8")
    whole = subprocess.run(
        [sys.executable, script, tmp_path / "whole"], capture_output=True, text=True, check=True
    )
    with subprocess.Popen(
        [sys.executable, script, tmp_path / "cut"], stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if int(line) >= 7:
                process.send_signal(signal.SIGKILL)
                break
    time.sleep(0.1)
    resumed = subprocess.run(
        [sys.executable, script, tmp_path / "cut", "resume"], capture_output=True, text=True, check=False
    )
    assert resumed.returncode == 0, resumed.stderr
    assert "could not be made" not in resumed.stderr + whole.stderr
    assert resumed.stdout.split()[-1] == whole.stdout.split()[-1]
    assert left(tmp_path / "cut") == left(tmp_path / "whole")
    # The command line has no objects: it says where they are wanted, and can still show the run.
    code = "from fedtlu_fast.cli.main import main; main()"
    on = [sys.executable, "-c", code]
    refused = subprocess.run(
        [*on, "run", "--resume", tmp_path / "cut"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "__main__:Halved" in refused.stderr
    shown = subprocess.run([*on, "history", tmp_path / "cut"], capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    written = (tmp_path / "cut" / "config.yaml").read_text()
    assert "rule: __main__:Halved" in written
    assert not {"partition:", "model:", "pretraining:"} & set(written.splitlines())
    assert json.loads((tmp_path / "cut" / "summary.json").read_text())["task"] == "own"


def weighed_sum(updates, weights, factor):
    return factor * updates.mean(dim=0)


class Steps:
    def __call__(self, change):
        return torch.arange(len(change.layout.blocks))


def test_partials_and_callable_objects_serve_as_rule_score_loss_and_metric(tmp_path):
    def right(outputs, targets, share):
        return share * (outputs.argmax(dim=1) == targets).float()

    task = SupervisedTask(net(), partial(loss), {"half_right": partial(right, share=0.5)})

    def made(factor):
        return federation(task, aggregation=partial(weighed_sum, factor=factor), selection=Steps())

    whole = made(0.5).run(2)
    made(0.5).run(1, tmp_path / "out")
    again = made(0.5).resume(tmp_path / "out", rounds=2)
    assert again.summary["params_sha256"] == whole.summary["params_sha256"]
    assert made(1.0).run(2).summary["params_sha256"] != whole.summary["params_sha256"]
    assert 0 < whole.summary["test_half_right"] <= 0.5
    with pytest.raises(InputError, match=r"code of .*weighed_sum, partial"):
        made(1.0).resume(tmp_path / "out", rounds=3)


def test_the_same_step_twice_remembers_twice(tmp_path):
    def made():
        return federation(client_steps=["scaffold", "scaffold"])

    whole = made().run(3)
    made().run(2, tmp_path / "out")
    memory = next((tmp_path / "out").glob("checkpoints/*2/memory.safetensors")).read_bytes()
    assert b"Scaffold#2" in memory
    resumed = made().resume(tmp_path / "out", rounds=3)
    assert resumed.summary["params_sha256"] == whole.summary["params_sha256"]
    once = federation(client_steps=["scaffold"]).run(3)
    assert once.summary["params_sha256"] != whole.summary["params_sha256"]


def test_values_stand_after_names():
    short = federation(aggregation="trimmed_mean:0.34", server_optimizer="momentum:0.5")
    assert short.config(1).aggregation.rule == TrimmedMean(0.34)
    assert short.config(1).aggregation.server_optimizer == Momentum(0.5)


IMPORTED = """
import sys

import torch

import fedtlu_fast as ft

SIGN = 1


def farthest(change):
    return [SIGN * float(change.stats.l2[list(b.layers)].max()) for b in change.layout.blocks]


@ft.part
class Middle(ft.TrimmedMean):
    extra: float = 0.5


torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
x = torch.arange(12.0).view(6, 2)
data = ft.Datasets(train=[(x, x.sum(dim=1).long() % 3)] * 3, test=(x, x.sum(dim=1).long() % 3))
federation = ft.Federation(
    ft.SupervisedTask(model, torch.nn.functional.cross_entropy),
    data, cohort=3, keep=1, selection=farthest, aggregation=Middle(), executor="serial",
)

if __name__ == "__main__":
    federation.run(2, sys.argv[1])
    import own_script

    resumed = own_script.federation.resume(sys.argv[1], rounds=3)
    print(resumed.summary["params_sha256"] == federation.run(3).summary["params_sha256"])
    own_script.SIGN = -1
    try:
        own_script.federation.resume(sys.argv[1], rounds=4)
    except ft.InputError as error:
        print(error)
"""


def test_a_script_s_run_is_resumed_where_the_script_is_imported(tmp_path):
    script = tmp_path / "own_script.py"
    script.write_text(IMPORTED, encoding="utf-8")
    environment = {**os.environ, "PYTHONSAFEPATH": ""}
    call = [sys.executable, script, tmp_path / "run"]
    done = subprocess.run(call, capture_output=True, text=True, check=False, env=environment)
    same, refused = done.stdout.splitlines() or [done.stderr, ""]
    assert same == "True", done.stderr
    assert "code of SIGN; they have changed" in refused
