"""Tests that a missing optional package is one message with the command that installs it."""

import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

from fedtlu_fast import InputError, extras
from fedtlu_fast.data.hub.load import load_hub
from fedtlu_fast.data.hub.location import read_location

ROOT = Path(__file__).resolve().parents[1]


def test_data_of_the_hub_need_a_package_that_scoring_and_training_do_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "datasets" else find_spec(name))
    with pytest.raises(
        InputError,
        match=r"^data\.source: got 'hf:some/name@main'; expected the package datasets; it cannot be found\. "
        r"Use pip install 'fedtlu-fast\[datasets\]'\.$",
    ):
        load_hub(read_location("some/name@main"))


@pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="needs the source checkout")
@pytest.mark.parametrize(
    ("extra", "packages"), [("datasets", ["datasets"]), ("peft", ["peft"]), ("gguf", ["accelerate", "gguf"])]
)
def test_the_extra_of_a_message_brings_its_packages(extra: str, packages: list[str]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = project["optional-dependencies"][extra]
    assert [need.partition(">=")[0] for need in needs] == packages
    assert not any(need.startswith(extra) for need in project["dependencies"])
