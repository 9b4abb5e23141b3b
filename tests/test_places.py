from pathlib import Path

import pytest
from support.sources import source

from fedtlu_fast.cli.options import from_everywhere
from fedtlu_fast.config.settings import load_config
from fedtlu_fast.errors import InputError
from fedtlu_fast.places import at_home, portable


def test_the_home_stands_in_for_the_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert at_home("~/a b") == tmp_path / "a b"
    assert at_home("~nobody-of-the-kind/a") == Path("~nobody-of-the-kind/a")
    assert at_home("a/~") == Path("a/~")
    spilling = ["aggregation.rule=median", "aggregation.spill=~/spill"]
    assert load_config("smoke", overrides=spilling).aggregation.rule.spill == str(tmp_path / "spill")


def test_paths_of_settings_hold_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("t.txt", "trace.csv"):
        (tmp_path / name).write_text("x")
    (tmp_path / "model").mkdir()
    given = ["data.source=text:t.txt", "participation.trace=trace.csv", "model.pretrained=model"]
    found = from_everywhere(load_config("smoke", overrides=given))
    assert str(found.data.source) == f"text:{tmp_path / 't.txt'}"
    assert found.participation.trace == str(tmp_path / "trace.csv")
    assert found.model.pretrained == str(tmp_path / "model")
    kept = from_everywhere(load_config("smoke", overrides=["data.source=text:gone", "model.pretrained=gpt2"]))
    assert (str(kept.data.source), kept.model.pretrained) == ("text:gone", "gpt2")
    assert from_everywhere(load_config("smoke")) == load_config("smoke")


@pytest.mark.parametrize("rest", ["", ":en", "@main", ":en@main"])
def test_local_folders_of_the_hub_hold_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rest: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a@b:c").mkdir()
    for given in ("a@b:c", "./a@b:c", "~/a@b:c", str(tmp_path / "a@b:c")):
        assert str(source(f"hf:{given}{rest}").located()) == f"hf:{tmp_path / 'a@b:c'}{rest}"
    assert str(source(f"hf:org/name{rest}").located()) == f"hf:org/name{rest}"
    assert str(source(f"hf:./gone{rest}").located()) == f"hf:./gone{rest}"
    with pytest.raises(InputError, match="a folder that exists"):
        source(f"hf:./gone{rest}").texts()


def test_names_of_directories_hold_on_any_system() -> None:
    assert portable("my_parts.sel:Mine:0.3@2+always=h.*-seed0") == "my_parts.sel.Mine.0.3@2+always=h..-seed0"
    assert portable("top@1..4+lam=0.5") == "top@1..4+lam=0.5", "names without such characters stay"
