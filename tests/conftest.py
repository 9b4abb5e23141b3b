"""What must be set before torch and Triton load, and the fixtures that several folders use."""

import os

# One OpenMP runtime that waits passively: beside a busy core, spinning makes small tests 30 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Child processes run in the checkout: they too must import the installed package, not the folder beside them.
os.environ.setdefault("PYTHONSAFEPATH", "1")
# Nothing may reach for a hub while the tests run.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import logging
import signal
from collections.abc import Iterator

import pytest
import torch

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from fedtlu_fast.ops import dispatch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


LOGGERS = ("fedtlu_fast", "fedtlu_fast.data", "matplotlib")
"""Whose levels the command line sets."""


@pytest.fixture(autouse=True)
def no_command_line_before() -> Iterator[None]:
    """Each test begins with the loggers' levels and the Ctrl-C of a program that never called the command
    line, which sets both for the life of its process.
    """
    before = {name: logging.getLogger(name).level for name in LOGGERS}
    interrupt = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, interrupt)
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


def live() -> list[tuple[str, str]]:
    """(backend, device) pairs that run here; on a machine without a GPU Triton's interpreter is one."""
    devices = dict.fromkeys(["cpu", DEVICE])
    return [(name, device) for device in devices for name in dispatch.live_backends(device)]


@pytest.fixture(params=live(), ids=lambda pair: f"{pair[0]}-{pair[1]}")
def backend(request: pytest.FixtureRequest) -> str:
    """A live backend's name; the tests that use it run once for each. Tensors go to `backend_device`."""
    return str(request.param[0])


@pytest.fixture
def backend_device(request: pytest.FixtureRequest) -> str:
    """The device of the live backend that the test runs on."""
    return str(request.node.callspec.params["backend"][1])


@pytest.fixture
def generator() -> torch.Generator:
    """Fresh random input in every session; a failure prints the seed to run it again with."""
    seed = int(os.environ.get("FEDTLU_TEST_SEED", torch.seed() % 2**31))
    print(f"FEDTLU_TEST_SEED={seed}")
    return torch.Generator().manual_seed(seed)
