"""Tests what a process loads: only commands that need a heavy package wait for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

HEAVY = {
    "PIL",
    "datasets",
    "huggingface_hub",
    "jinja2",
    "matplotlib",
    "pandas",
    "peft",
    "pyarrow",
    "ray",
    "scipy",
    "sklearn",
    "tokenizers",
    "transformers",
    "yaml",
}
"""Packages that scoring does not need. Typer itself loads pydantic, so a command cannot do without."""
COMMAND = """
import sys
sys.argv = ["fedtlu", {arguments}]
from fedtlu_fast.cli.main import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
"""


def loaded(code: str) -> set[str]:
    """Runs code in a process of its own; returns the packages that it loaded."""
    shown = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\n{shown}"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "TRITON_INTERPRET": "0"},
    )
    return set(json.loads(found.stdout.splitlines()[-1]))


def command(*arguments: str) -> set[str]:
    return loaded(COMMAND.format(arguments=", ".join(map(repr, arguments))))


def test_the_package_itself_loads_no_other_package() -> None:
    own = loaded("import fedtlu_fast") - loaded("")
    assert {name for name in own if name not in sys.stdlib_module_names} == {"fedtlu_fast"}


@pytest.mark.parametrize("arguments", [["--help"], ["score", "--help"], ["run", "--help"]], ids=" ".join)
def test_help_does_not_wait_for_torch(arguments: list[str]) -> None:
    assert command(*arguments) & {"torch", "numpy", *HEAVY} == set()


def test_scoring_loads_torch_and_nothing_heavier(tmp_path: Path) -> None:
    places = [str(tmp_path / name) for name in ("before.safetensors", "after.safetensors")]
    for place in places:
        save_file({f"h.{layer}.weight": torch.randn(3, 4) for layer in range(2)}, place)
    python = f"import fedtlu_fast; fedtlu_fast.score({places[0]!r}, {places[1]!r})"
    in_python, on_command_line = loaded(python), command("score", *places)
    assert "torch" in in_python & on_command_line
    assert in_python & {"pydantic", *HEAVY} == set()
    assert on_command_line & HEAVY == set()
