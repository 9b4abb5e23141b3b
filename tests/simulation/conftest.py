from collections.abc import Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.federations import write_text

from fedtlu_fast.experiments import compare as module
from fedtlu_fast.experiments.arm_pool import ArmPool


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small text file that nobody changes."""
    return write_text(tmp_path_factory.mktemp("data") / "text.txt")


class InProcess(Executor):
    """Runs arms here, one after another: the workers' code without the seconds that a process costs."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def pool(count: int, limit: float | None) -> Iterator[ArmPool]:
        yield ArmPool(InProcess(), limit)

    monkeypatch.setattr(module, "arm_pool", pool)
