"""Tests that a run has its own state of PyTorch and NumPy and leaves the caller's state unchanged."""

import random
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from support.federations import tree, write_text
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from fedtlu_fast import (
    FedtluError,
    InputError,
    ParameterLayout,
    aggregate,
    layer_stats,
    process_state,
    score_blocks,
    score_layers,
    simulate,
)
from fedtlu_fast.build import parts
from fedtlu_fast.build.task import build_task
from fedtlu_fast.process_state import SETTINGS, check_settings
from fedtlu_fast.torch_state import callers_state, own_state

PERCEPTRON = {
    "task": "classification",
    "data": {"source": "synthetic", "classes": 3, "synthetic": {"features": 4, "fewest": 4, "most": 6}},
    "model": {"hidden": [5]},
    "rounds": 2,
    "warmup_rounds": 1,
    "clients": 4,
    "cohort": 2,
    "training": {"local_steps": 2, "batch_size": 2},
    "selection": {"selector": "full"},
    "evaluation": {"trained_clients": 1},
    "execution": {"executor": "serial"},
}


@pytest.fixture(scope="module")
def attentive(tmp_path_factory):
    """Returns the settings of a model with attention."""
    return tree(write_text(tmp_path_factory.mktemp("text") / "text.txt", words=600), rounds=1)


def bits(settings=PERCEPTRON, **over):
    """Returns the results by which two runs are compared."""
    summary = simulate({**settings, **over}).summary
    return summary["params_sha256"], summary["test_loss"]


@pytest.fixture(scope="module")
def usual(attentive):
    return bits(), bits(attentive)


@contextmanager
def set_to(setter, value, before):
    setter(value)
    try:
        yield
    finally:
        setter(before)


@contextmanager
def backend_flag(owner, name, value):
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


class Halving(TorchDispatchMode):
    """Halves every product."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        return found / 2 if func is torch.ops.aten.mm.default else found


def flushes():
    return sys.float_info.min / 2 == 0.0


STATES = {
    "no gradients": (lambda: set_to(torch.set_grad_enabled, False, True), torch.is_grad_enabled),
    "inference mode": (torch.inference_mode, torch.is_inference_mode_enabled),
    "autocast": (
        lambda: torch.autocast("cpu", torch.bfloat16),
        lambda: torch.is_autocast_enabled("cpu"),
    ),
    "default dtype": (
        lambda: set_to(torch.set_default_dtype, torch.float64, torch.float32),
        torch.get_default_dtype,
    ),
    "default device": (
        lambda: set_to(torch.set_default_device, "meta", None),
        lambda: torch.empty(1).device,
    ),
    "a device's block": (lambda: torch.device("meta"), lambda: torch.empty(1).device),
    "a dispatch mode": (Halving, lambda: torch.ones(1, 1).mm(torch.ones(1, 1)).item()),
    "deterministic": (
        lambda: set_to(torch.use_deterministic_algorithms, True, False),
        torch.are_deterministic_algorithms_enabled,
    ),
    "flushing": (lambda: set_to(torch.set_flush_denormal, True, False), flushes),
    "threads": (
        lambda: set_to(torch.set_num_threads, 3, torch.get_num_threads()),
        torch.get_num_threads,
    ),
    "precision": (
        lambda: set_to(torch.set_float32_matmul_precision, "medium", "highest"),
        torch.get_float32_matmul_precision,
    ),
    "oneDNN": (
        lambda: backend_flag(torch.backends.mkldnn, "enabled", False),
        lambda: torch.backends.mkldnn.enabled,
    ),
    "attention": (lambda: sdpa_kernel(SDPBackend.MATH), torch.backends.cuda.flash_sdp_enabled),
    "hooks": (
        lambda: torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor * 2, lambda tensor: tensor),
        lambda: torch._C._autograd._top_saved_tensors_default_hooks(True) is not None,
    ),
    "no hooks": (
        lambda: torch.autograd.graph.disable_saved_tensors_hooks("none here"),
        torch._C._autograd._saved_tensors_hooks_get_disabled_error_message,
    ),
    "anomaly": (lambda: torch.autograd.set_detect_anomaly(True), torch.is_anomaly_enabled),
    "NumPy": (lambda: np.errstate(all="raise"), np.geterr),
}


@pytest.mark.parametrize("name", STATES)
def test_a_run_has_the_same_bits_in_any_state_and_leaves_it(usual, attentive, name):
    enter, state = STATES[name]
    before = state()
    with enter():
        inside = state()
        assert inside != before, "the test changes something"
        assert (bits(), bits(attentive)) == usual
        assert state() == inside
    assert state() == before


@pytest.mark.parametrize("name", ["no gradients", "autocast", "default dtype", "attention", "no hooks"])
def test_every_engine_has_its_own_state(attentive, name):
    compiled = {"execution": {"executor": "serial", "engine": "compiled"}}
    vectorized = {"execution": {"executor": "vectorized"}}
    expected = bits(**compiled), bits(attentive, **vectorized)
    with STATES[name][0]():
        assert (bits(**compiled), bits(attentive, **vectorized)) == expected


def test_the_callers_generators_are_unchanged(usual):
    def drawn():
        return torch.rand(1).item(), np.random.randn(), random.random()  # noqa: NPY002

    def seed():
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        random.seed(3)
        np.random.randn()  # half a pair: the other half must stay  # noqa: NPY002

    seed()
    expected = drawn()
    seed()
    assert bits() == usual[0]
    assert drawn() == expected


@pytest.mark.parametrize(
    "name", ["no gradients", "inference mode", "autocast", "default dtype", "default device"]
)
def test_scores_and_aggregates_are_the_same_in_any_state(name):
    model, draws = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), torch.Generator().manual_seed(2)
    updates = torch.randn(2, 21, generator=draws)

    def found():
        layout = ParameterLayout.from_module(model)
        sums = aggregate(updates, [1, 2], layout, client_stats=True)
        stats = layer_stats(updates[0], layout)
        blocks = score_blocks(score_layers(stats), layout, stats)
        return [layout.flatten(model), layout.flatten_buffers(model), sums.change, sums.stats.mean, blocks]

    expected = found()
    with STATES[name][0]():
        again = found()
    assert [tensor.dtype for tensor in again] == [tensor.dtype for tensor in expected]
    assert all(map(torch.equal, again, expected))


def test_observers_see_the_callers_state():
    seen = []

    def observe(row):
        seen.append((torch.is_grad_enabled(), torch.get_default_dtype()))
        torch.set_grad_enabled(True)

    with set_to(torch.set_default_dtype, torch.float64, torch.float32), torch.no_grad():
        simulate(PERCEPTRON, callbacks=[observe])
        assert torch.is_grad_enabled(), "what an observer sets is the caller's"
    assert seen == [(False, torch.float64), (True, torch.float64)]


def test_models_that_draw_in_training_do_so_from_seeded_generators(monkeypatch):
    """This holds in threads too, and a model that does not draw leaves the generators alone."""

    def with_dropout(config, data, seed):
        task = build_task(config, data, seed)
        task.model.insert(1, nn.Dropout(0.5))
        return task

    plain = bits()
    monkeypatch.setattr(parts, "build_task", with_dropout)
    assert bits() != plain
    check_threads([{**PERCEPTRON, "seed": seed} for seed in range(3)])


def test_runs_in_threads_have_the_bits_of_runs_one_after_another(attentive):
    ways = (
        {"executor": "vectorized"},
        {"executor": "serial", "clients_per_batch": 1},
        {"executor": "vectorized"},
    )
    check_threads([{**attentive, "seed": seed, "execution": way} for seed, way in enumerate(ways)])


def check_threads(over):
    expected, found = [bits(one) for one in over], {}

    def run(index):
        found[index] = bits(over[index])

    threads = [threading.Thread(target=run, args=(index,)) for index in range(3)]
    before = torch.get_num_threads()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[index] for index in range(3)] == expected
    assert torch.get_num_threads() == before
    assert threads_of_a_new_thread() == before


def threads_of_a_new_thread():
    found = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_a_run_inside_a_function_transform_is_refused():
    def inside(numbers):
        bits()
        return numbers.sum()

    with pytest.raises(InputError, match=r"torch\.func: got 'a run inside vmap"):
        torch.func.grad(inside)(torch.ones(2))


def test_a_setting_of_the_process_that_is_changed_meanwhile_is_an_error():
    def elsewhere():
        torch.set_default_dtype(torch.float64)

    with own_state():
        check_settings()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        with pytest.raises(FedtluError, match=r"set_default_dtype was changed to torch\.float64 while a run"):
            check_settings()
        torch.set_default_dtype(torch.float32)


def test_a_second_run_beside_a_changed_setting_is_refused_before_it_begins():
    def begin():
        try:
            with own_state():
                found.append("began")
        except InputError as error:
            found.append(str(error))

    found = []
    with own_state():
        torch.set_default_dtype(torch.float64)
        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()
        torch.set_default_dtype(torch.float32)
    assert "as long as another run is in progress" in found[0]


def test_nested_states_and_the_callers_within():
    with torch.no_grad(), own_state(threads=2):
        assert torch.is_grad_enabled()
        with own_state(threads=1):
            assert torch.get_num_threads() == 1
            with callers_state():
                assert not torch.is_grad_enabled()
            assert torch.is_grad_enabled()
        assert torch.get_num_threads() == 2
    with callers_state():
        assert torch.is_grad_enabled()


def test_an_error_inside_puts_everything_back():
    values = [setting.read() for setting in SETTINGS]
    with torch.no_grad(), np.errstate(under="raise"):
        with pytest.raises(ZeroDivisionError), own_state(threads=1):
            raise ZeroDivisionError
        assert not torch.is_grad_enabled()
        assert np.geterr()["under"] == "raise"
    assert [setting.read() for setting in SETTINGS] == values


def test_precisions_come_back_as_they_were():
    before = process_state._precision()
    for owner in (torch.backends, torch.backends.mkldnn.matmul):
        owner.fp32_precision = "tf32" if owner is torch.backends else "bf16"
        changed = process_state._precision()
        assert changed != before
        with own_state():
            check_settings()
            assert "bf16" not in process_state._precision().values()
        assert process_state._precision() == changed
        process_state._set_precision(before)
        assert process_state._precision() == before
