"""A Flower federation of real processes on loopback, and a count of the bytes between them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""With these variables Flower and Ray send nothing to their makers and install nothing."""
MARK = "FEDTLU_TEST_PROCESS"


def environment(home: Path, mark: str) -> dict[str, str]:
    """The variables of a process of Flower's, with a mark that its descendants inherit."""
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    return {**os.environ, **QUIET, "PATH": path, "FLWR_HOME": str(home), MARK: mark, "OMP_NUM_THREADS": "1"}


def end_marked(mark: str) -> None:
    """Kills every process that inherited a mark, its descendants in other sessions too (Linux)."""
    for _ in range(5):  # a process may start another while it is looked for
        found = [
            int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal() and _has(path, mark)
        ]
        if not found:
            return
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.2)


def _has(process: Path, mark: str) -> bool:
    try:
        return f"{MARK}={mark}".encode() in (process / "environ").read_bytes()
    except OSError:  # ended meanwhile, or another user's
        return False


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Wire:
    """Passes connections on to a port of this machine and counts the bytes in both directions."""

    def __init__(self, target: int) -> None:
        self._target, self._server = target, socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self.up = self.down = 0
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                if self._server.fileno() < 0:
                    return
                near.close()  # nobody listens yet
                continue
            for pair, name in (((near, far), "up"), ((far, near), "down")):
                threading.Thread(target=self._pass, args=(*pair, name), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, name: str) -> None:
        try:
            while data := source.recv(1 << 16):
                with self._lock:
                    setattr(self, name, getattr(self, name) + len(data))
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()


class Deployment:
    """A SuperLink and SuperNodes; leaving the context ends all their processes."""

    def __init__(self, folder: Path, nodes: int) -> None:
        self._folder, self._nodes = folder, nodes
        self._mark = uuid.uuid4().hex
        self._port = free_port()
        self.wire = Wire(self._port)

    def __enter__(self) -> Deployment:
        try:
            home = self._folder / "home"
            home.mkdir()
            connection = f'[superlink.loopback]\naddress = "127.0.0.1:{self._port}"\ninsecure = true\n'
            (home / "config.toml").write_text(f'[superlink]\ndefault = "loopback"\n{connection}')
            link = ("flower-superlink", "--insecure", "--host", "127.0.0.1", "--port", str(self._port))
            self._start("link", *link)
            self._wait("link", "Uvicorn running")
            for node in range(self._nodes):
                address = ("--superlink", f"127.0.0.1:{self.wire.port}", "--port", str(free_port()))
                part = ("--node-config", f"partition-id={node} num-partitions={self._nodes}")
                self._start(f"node{node}", "flower-supernode", "--insecure", *address, *part)
            for node in range(self._nodes):
                self._wait(f"node{node}", "SuperNode ID")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in ("run", *(f"node{node}" for node in range(self._nodes)), "link"):
            end_marked(f"{self._mark}-{name}.")
        self.wire.close()

    def kill(self, node: int) -> None:
        """Kills a SuperNode and what it started, without a farewell."""
        end_marked(f"{self._mark}-node{node}.")

    def run(
        self, app: Path, config: Mapping[str, object], said: Callable[[str], None] | None = None
    ) -> list[str]:
        """Runs an app to its end and returns the lines of its log; `said` gets each when it comes."""
        words = [f"{name}={json.dumps(value)}" for name, value in config.items()]
        command = ["flwr", "run", str(app), "loopback", "--stream", "--run-config", " ".join(words)]
        lines = []
        with subprocess.Popen(
            command, env=self._environment("run"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                if said is not None:
                    said(line)
        return lines

    def log(self, name: str) -> str:
        """What the ``link``, or ``node0``, ..., has said."""
        return (self._folder / f"{name}.log").read_text()

    def _wait(self, name: str, word: str, seconds: float = 90) -> None:
        """Waits until a process has said a word."""
        end = time.monotonic() + seconds
        while word not in self.log(name):
            if time.monotonic() > end:
                raise TimeoutError(f"{name} has not said {word!r}:\n{self.log(name)[-2000:]}")
            time.sleep(0.2)

    def _environment(self, name: str) -> dict[str, str]:
        return environment(self._folder / "home", f"{self._mark}-{name}.")

    def _start(self, name: str, *command: str) -> None:
        with (self._folder / f"{name}.log").open("w") as out:
            subprocess.Popen(
                command, env=self._environment(name), stdout=out, stderr=out, start_new_session=True
            )
