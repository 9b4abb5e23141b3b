import logging
import math
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from support.choosing import Federation, personal_of, probes_of, settings_of
from support.federations import timeless, tiny

from fedtlu_fast import simulate
from fedtlu_fast.clients.training import ClientUpdate, LocalTrainer
from fedtlu_fast.config import RunConfig
from fedtlu_fast.config.settings import laid_over, parse_config
from fedtlu_fast.errors import BackendUnavailableError, ClientError, InputError, WorkerError
from fedtlu_fast.simulation.state import ServerState

if find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)

# Before Ray itself, as in a run.
from fedtlu_fast.executors import ray as executor
from fedtlu_fast.executors import ray_cluster

# To start Ray alone takes ten seconds: among the quick tests one does.
starts_ray = pytest.mark.slow

ray = executor.ray
CPUS = 2


def _faults(folder: Path) -> Callable[[], None]:
    """What every worker's process calls first: clients then do what files in `folder` say."""

    def install() -> None:
        import re

        from fedtlu_fast.build import remote as workers

        train, make_parts = LocalTrainer.train, workers.make_parts

        def trained(self: LocalTrainer, *args: Any) -> ClientUpdate:
            client = args[4]
            with (folder / "log").open("a") as log:
                log.write(f"{os.getpid()} {client} {torch.get_num_threads()}\n")
            if (folder / "slow").exists():
                time.sleep(0.02)
            while (folder / f"sleep-{client}").exists():
                time.sleep(0.01)
            if (folder / f"spin-{client}").exists():
                re.match(r"(a+)+b", "a" * 60)  # hours in C, nothing else in the process gets a turn
            if (folder / f"raise-{client}").exists():
                raise ValueError("spoilt")
            if (folder / f"die-{client}").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            return train(self, *args)

        def made(config: RunConfig, **options: Any) -> Any:
            if (folder / "die-at-start").exists():
                os.kill(os.getpid(), signal.SIGKILL)
            return make_parts(config, **options)

        import torch

        LocalTrainer.train = trained  # type: ignore[method-assign]
        workers.make_parts = made

    return install


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One Ray for all tests, whose workers heed this folder."""
    found = tmp_path_factory.mktemp("faults")
    ray.init(
        address="local",
        num_cpus=CPUS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=100 * 2**20,
        runtime_env={"worker_process_setup_hook": _faults(found)},
    )
    yield found
    ray.shutdown()


@pytest.fixture
def faults(folder: Path) -> Iterator[Path]:
    """The folder, empty."""
    yield folder
    for file in folder.iterdir():
        file.unlink()


def _settings(executor: str, **execution: Any) -> dict[str, Any]:
    settings = {"executor": executor, "workers": CPUS, "retries": 1, **execution}
    return {"cohort": 7, "clients": 9, "rounds": 3, "warmup_rounds": 1, "execution": settings}


def _config(executor: str = "ray", **execution: Any) -> RunConfig:
    task = {"task": "classification", "data": {"source": "synthetic"}, "partition": "natural"}
    return parse_config({**task, "selection": {"selector": "full"}, **_settings(executor, **execution)})


def _sha(config: RunConfig) -> str:
    return str(simulate(config).summary["params_sha256"])


def _log(folder: Path) -> list[tuple[int, ...]]:
    """(process, client, threads) of every training so far."""
    lines = (folder / "log").read_text().splitlines() if (folder / "log").exists() else []
    return [tuple(map(int, line.split())) for line in lines]


def _cohort() -> list[int]:
    """Of the first round."""
    cohort: list[int] = simulate(_config("serial", clients_per_batch=1)).selection[0]["cohort"]
    return cohort


def _wait_for(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done() and time.monotonic() < end:
        time.sleep(0.01)


@contextmanager
def _beside(act: Callable[[], None]) -> Iterator[None]:
    """Has a thread act meanwhile."""
    thread = threading.Thread(target=act)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.sweep(quick=1)
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("clients_per_batch", "engine"), [(1, "torch"), (3, "torch"), (3, "compiled")])
def test_same_bits_as_other_executors(
    faults: Path, clients_per_batch: int, engine: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, stored = ray.put, []
    monkeypatch.setattr(ray, "put", lambda value: stored.append(value.size) or put(value))
    found = simulate(_config(workers=workers, clients_per_batch=clients_per_batch, engine=engine))
    for other in ["processes", "vectorized" if (clients_per_batch, engine) == (3, "torch") else "serial"]:
        expected = simulate(_config(other, clients_per_batch=clients_per_batch, engine=engine))
        assert found.summary["params_sha256"] == expected.summary["params_sha256"]
        assert timeless(found.metrics) == timeless(expected.metrics)
        assert found.selection == expected.selection
    if clients_per_batch == 1:
        assert len({process for process, _, _ in _log(faults)}) <= workers
        assert {threads for _, _, threads in _log(faults)} == {1}
    assert stored == [found.params.numel(), 0] * 3, "the global vectors, once a round"
    assert ray.is_initialized(), "it was the caller's"


@starts_ray
def test_language_model_in_few_lanes_has_the_same_bits(text: Path, faults: Path) -> None:
    one, other = (tiny(text, **_settings(name, lanes=2)) for name in ("ray", "serial"))
    assert _sha(one) == _sha(other)


@starts_ray
def test_what_clients_keep_comes_back_and_holds_nothing_in_the_object_store(faults: Path) -> None:
    def after(execution: dict[str, Any]) -> ServerState:
        chosen = {"selector": "snr", "budget": 1, "personal": "8", "probe_every": 2}
        federation = Federation(settings_of(chosen, execution={"lanes": 3, **execution}))
        with closing(federation.executor):
            for _ in range(3):
                federation.round()
        return federation.state

    expected, found = after({}), after({"executor": "ray", "workers": 2})
    assert torch.equal(found.params, expected.params)
    assert personal_of(found).keys() == personal_of(expected).keys()
    for client, own in personal_of(expected).items():
        assert personal_of(found)[client].tobytes() == own.tobytes()
        assert personal_of(found)[client].flags.owndata
    assert all(gains.flags.owndata for _, gains in probes_of(found).values())


@starts_ray
def test_finished_lanes_wait_in_bounded_number(faults: Path) -> None:
    config = _config()
    expected = _sha(_config("serial"))
    most, seen = executor.SLOTS * CPUS, []
    asleep = faults / f"sleep-{_cohort()[0]}"
    asleep.touch()

    def watch() -> None:
        _wait_for(lambda: len(_log(faults)) >= most)
        time.sleep(0.5)
        seen.extend(_log(faults))
        asleep.unlink()

    with _beside(watch):
        assert _sha(config) == expected
    assert len(seen) == most < config.cohort
    assert len({process for process, _, _ in seen}) == CPUS


@starts_ray
def test_killed_worker_s_lane_is_trained_again(
    faults: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    expected, client = _sha(_config("serial")), _cohort()[3]
    asleep = faults / f"sleep-{client}"
    asleep.touch()

    def kill() -> None:
        """Kills the worker while it trains this client, however busy the machine is."""
        try:
            _wait_for(lambda: client in (begun for _, begun, _ in _log(faults)))
            os.kill(next(process for process, begun, _ in _log(faults) if begun == client), signal.SIGKILL)
        finally:
            asleep.unlink()

    with _beside(kill):
        assert _sha(_config()) == expected
    assert caplog.text.count("a worker was lost") == 1
    time.sleep(1)
    assert capfd.readouterr().out == "", "a result in JSON may be printed there"


@starts_ray
def test_workers_killed_at_random_moments_do_not_change_the_bits(faults: Path) -> None:
    config = _config(retries=20, lanes=3).model_copy(update={"rounds": 30})
    expected = _sha(config.model_copy(update={"execution": _config("serial", lanes=3).execution}))
    (faults / "slow").touch()
    over, killed = threading.Event(), set[int]()

    def kill() -> None:
        """Kills after so many trainings, not after some time, which passes otherwise on a busy machine."""
        for _ in range(4):
            # Of 210 trainings or more these take 160 at most.
            _wait_for(partial(is_due, len(_log(faults)) + random.randint(5, 40)))
            if over.is_set():
                return
            process = recent().pop()
            with suppress(ProcessLookupError):  # the run has just ended
                os.kill(process, signal.SIGKILL)
                killed.add(process)

    def is_due(trainings: int) -> bool:
        return over.is_set() or (len(_log(faults)) >= trainings and bool(recent()))

    def recent() -> set[int]:
        """The processes that trained lately, and live."""
        return {process for process, _, _ in _log(faults)[-8:]} - killed

    with _beside(kill):
        try:
            assert _sha(config) == expected
        finally:
            over.set()
    assert len(killed) > 2


@starts_ray
def test_client_that_kills_every_worker_ends_the_run(faults: Path) -> None:
    (faults / f"die-{_cohort()[3]}").touch()
    with pytest.raises(WorkerError, match="round 1: the same lane has lost 2 workers"):
        simulate(_config())


@starts_ray
def test_workers_that_die_while_starting_end_the_run(faults: Path) -> None:
    (faults / "die-at-start").touch()
    with pytest.raises(WorkerError, match=r"do not survive building data and model \(2 lost\)"):
        simulate(_config())


@starts_ray
def test_client_s_error_arrives_as_itself(faults: Path) -> None:
    client = _cohort()[2]
    (faults / f"raise-{client}").touch()
    with pytest.raises(ClientError, match="ValueError: 'spoilt'") as caught:
        simulate(_config())
    assert type(caught.value) is ClientError
    assert (caught.value.client, caught.value.round_index) == (client, 1)


@starts_ray
def test_data_that_workers_cannot_read_are_an_input_error(
    text: Path, faults: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, put = tmp_path / "text.txt", ray.put
    here.write_text(text.read_text())
    # The caller has read it by then, the workers have not.
    monkeypatch.setattr(ray, "put", lambda value: here.unlink(missing_ok=True) or put(value))
    with pytest.raises(InputError, match="text:") as caught:
        simulate(tiny(here, **_settings("ray")))
    assert type(caught.value) is InputError


@starts_ray
def test_hung_client_is_dropped_as_by_processes(faults: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = _cohort()[1]
    (faults / f"sleep-{client}").touch()
    train = LocalTrainer.train

    def hangs(self: LocalTrainer, *args: Any) -> ClientUpdate:
        if args[4] == client and multiprocessing.parent_process() is not None:
            time.sleep(600)
        return train(self, *args)

    monkeypatch.setattr(LocalTrainer, "train", hangs)
    # Long enough: on a busy machine the first steps of a new process take their time.
    configs = (
        _config(name, client_seconds=2, client_errors="drop", lanes=3) for name in ("ray", "processes")
    )
    found, expected = (simulate(config.model_copy(update={"rounds": 1})) for config in configs)
    assert list(found.metrics[0]["failed"]) == [str(client)]
    assert timeless(found.metrics) == timeless(expected.metrics)
    assert found.summary["params_sha256"] == expected.summary["params_sha256"]


@starts_ray
def test_hung_client_stops_the_run(faults: Path) -> None:
    client = _cohort()[1]
    (faults / f"sleep-{client}").touch()
    with pytest.raises(ClientError, match=f"client {client} failed in round 1: it trained for more than"):
        simulate(_config(client_seconds=1))


@starts_ray
def test_worker_in_which_nothing_gets_a_turn_is_replaced(
    faults: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (faults / f"spin-{_cohort()[1]}").touch()
    monkeypatch.setattr(executor, "ANSWER_SECONDS", 2.0)
    with pytest.raises(WorkerError, match="the same lane has lost 2 workers: it was silent"):
        simulate(_config(client_seconds=1))


def test_more_threads_are_refused() -> None:
    with pytest.raises(InputError, match="threads: got 2"):
        simulate(_config().model_copy(update={"threads": 2}))


@pytest.mark.parametrize("gpus", [1, 2, 3, 8])
@pytest.mark.parametrize("workers", [1, 2, 3, 6, 7, 64])
def test_share_of_a_gpu_gives_every_worker_room(workers: int, gpus: int) -> None:
    share = ray_cluster.share_of_a_gpu(workers, gpus)
    assert 0 < share <= 1
    assert round(share * 1e4) == pytest.approx(share * 1e4), "Ray counts in ten-thousandths"
    assert gpus * math.floor(1 / share) >= workers


@pytest.mark.parametrize("address", ["127.0.0.1:1", "here", "::", "ray://127.0.0.1:10001"])
@starts_ray
def test_address_at_which_nobody_answers_is_an_error_at_once(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with pytest.raises(BackendUnavailableError, match=f"no cluster answers at {address}"):
        simulate(_config(f"ray:{address}"))


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for module in (executor, ray_cluster):
        monkeypatch.delitem(sys.modules, module.__name__)
    with pytest.raises(BackendUnavailableError, match=r"pip install 'fedtlu-fast\[ray\]'"):
        simulate(_config())


def _alone(config: RunConfig, before: str = "") -> str:
    """What a run comes to in a process of its own, which has no Ray yet."""
    script = f"""
import json, signal
from fedtlu_fast import simulate
from fedtlu_fast.errors import FedtluError
from fedtlu_fast.executors.ray_cluster import ray
{before}
signal.signal(signal.SIGTERM, print)
joined = ray.is_initialized()
try:
    print(simulate(json.loads({config.model_dump_json()!r})).summary["params_sha256"])
except FedtluError as error:
    print(type(error).__name__, error)
assert ray.is_initialized() == joined
assert signal.getsignal(signal.SIGTERM) is print
"""
    # Ray puts the folder where a script without a file was started before its workers' own paths.
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", script]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280)
    assert ended.returncode == 0, ended.stderr
    # On a busy machine a worker may need more than the minute after which a run says so.
    told = [line for line in ended.stderr.splitlines() if "no worker has started" not in line]
    assert told == []
    return ended.stdout.strip()


@starts_ray
def test_ray_is_started_and_ended() -> None:
    assert _alone(_config()) == _sha(_config("serial"))


@starts_ray
def test_cluster_is_joined_and_left(faults: Path) -> None:
    address = ray.get_runtime_context().gcs_address
    assert _alone(_config(f"ray:{address}")) == _sha(_config("serial"))
    assert ray.cluster_resources()["CPU"] == CPUS


@starts_ray
def test_full_object_store_and_disk_end_the_run() -> None:
    fill = """
ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
         object_store_memory=80 * 2**20,
         _system_config={"local_fs_capacity_threshold": 1e-6, "automatic_object_spilling_enabled": False})
kept = []
try:
    while True:
        kept.append(ray.put(bytes(2**20)))
except ray.exceptions.OutOfDiskError:
    pass
"""
    config = _config()
    large = laid_over(config, ["model.hidden=[20000]"])
    assert "WorkerError Ray's object store is full" in _alone(large, fill)
