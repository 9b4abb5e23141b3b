"""trackio's local data base holds what the run's own files hold."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedtlu_fast.integrations.trackers.kept import FILE

pytest.importorskip("trackio")

CODE = """
import json, sys
from pathlib import Path
from support.federations import tiny
from support.tracking import killed_and_resumed, numbers

text, out = map(Path, sys.argv[1:])
result = killed_and_resumed(tiny(text), out, "trackio:mine")

from trackio.sqlite_storage import SQLiteStorage

(run,) = SQLiteStorage.get_runs("mine")
held = SQLiteStorage.get_logs("mine", run), SQLiteStorage.get_run_config("mine", run)
print(json.dumps([run, numbers(result), *held]))
"""


def test_one_record_holds_every_round_over_a_kill(text: Path, tmp_path: Path) -> None:
    # In a process of its own: trackio reads its settings when it is imported, and starts threads.
    here = {**os.environ, "TRACKIO_DIR": str(tmp_path / "db"), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", CODE, text, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, env=here, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1, "what trackio says goes to standard error"
    name, expected, logs, config = json.loads(done.stdout)
    found: dict[str, dict[int, float]] = {}
    for row in logs:
        for key, value in row.items():
            found.setdefault(key, {})[row["step"]] = value
    for key, own in expected.items():
        assert found[key] == dict(map(tuple, own)), key
    assert name.startswith("out-")
    assert config["training.lr"] == 0.5
    assert name in (tmp_path / "out" / FILE).read_text()
