"""What must be set before torch and Triton load, and the fixtures that several folders use."""

import os

# One OpenMP runtime that waits passively: beside a busy core, spinning makes small tests 30 times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Child processes run in the checkout: they too must import the installed package, not the folder beside them.
os.environ.setdefault("PYTHONSAFEPATH", "1")
# Nothing may reach for a hub while the tests run.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Every measurement is made, and nothing is kept in the user's cache; tests of what is kept set a directory.
os.environ["FEDTLU_CACHE"] = os.devnull
# Tables are as wide as in a pipe, whatever the terminal; pytest-xdist sets a width for its workers.
os.environ.pop("COLUMNS", None)

import logging
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support import sampling

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

from matplotlib.figure import Figure
from support.arms import pool_in_process
from support.federations import write_text

from fedtlu_fast.experiments import arm_runs
from fedtlu_fast.ops import backends
from fedtlu_fast.report.pages import parts

# Under nohup it is ignored, by all processes of the tests too.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# So is Ctrl-C in what a shell's script starts in the background.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"

BLANK = b"\x89PNG\r\n\x1a\n"
"""What stands for a picture: a drawn one takes longer than the small run that it shows."""
draw, drawing = parts.png, False


def drawn_or_blank(make: Callable[[], Figure]) -> bytes:
    """The picture where the test is about pictures, else `BLANK`."""
    return draw(make) if drawing else BLANK


parts.png = drawn_or_blank


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Runs before the fixtures: only tests of reports, and tests marked so, draw pictures."""
    global drawing
    drawing = "report" in item.path.parts or item.get_closest_marker("draws") is not None


def pytest_report_header() -> str:
    return f"FEDTLU_TEST_SEED={sampling.SEED} FEDTLU_TEST_PROFILE={sampling.PROFILE}"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs before `-m` chooses, which has to see what is slow."""
    sampling.mark_slow(items)


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


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text file that nobody changes."""
    return write_text(tmp_path_factory.mktemp("data") / "text.txt")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons train their arms in this process."""
    monkeypatch.setattr(arm_runs, "arm_pool", pool_in_process)


def live() -> list[tuple[str, str]]:
    """(backend, device) pairs that run here; on a machine without a GPU Triton's interpreter is one."""
    devices = dict.fromkeys(["cpu", DEVICE])
    return [(name, device) for device in devices for name in backends.live_backends(device)]


@pytest.fixture(params=live(), ids=lambda pair: f"{pair[0]}-{pair[1]}")
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """A live backend's name; the tests that use it run once for each. Tensors go to `backend_device`.

    Sums are in float64, so that all backends give the same bits; `tests/kernels` tests those in pairs.
    """
    monkeypatch.setenv("FEDTLU_GPU_SUMS", "float64")
    return str(request.param[0])


@pytest.fixture
def backend_device(request: pytest.FixtureRequest) -> str:
    """The device of the live backend that the test runs on."""
    return str(request.node.callspec.params["backend"][1])


@pytest.fixture
def generator() -> torch.Generator:
    """Fresh random input in every session; a failure prints the seed to run it again with."""
    return torch.Generator().manual_seed(sampling.seed())
