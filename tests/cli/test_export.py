from pathlib import Path

import torch
from support.federations import tiny
from transformers import AutoModelForCausalLM

from fedtlu_fast import simulate


def test_export_writes_a_model_that_transformers_reads(fedtlu, text: Path, tmp_path: Path) -> None:
    out, to = tmp_path / "run", tmp_path / "to"
    result = simulate(tiny(text, rounds=2, checkpoint={"best": True, "every": 1}), out)
    done = fedtlu("export", out, "--to", to, "--best")
    assert done.code == 0, done.stderr
    assert f"Files in {to}" in done.stderr
    assert result.best is not None
    found = AutoModelForCausalLM.from_pretrained(to)
    assert torch.equal(result.layout.flatten(found), result.best.params)
    again = fedtlu("export", out, "--to", to)
    assert again.code == 2
    assert "--to: got" in again.stderr
    assert "expected a new or empty directory" in again.stderr
    missing = fedtlu("export", tmp_path, "--to", tmp_path / "other")
    assert missing.code == 2
    assert "RUN_DIR: got" in missing.stderr
    assert not (tmp_path / "other").exists()


def test_export_of_a_run_without_a_best_model_is_refused(fedtlu, text: Path, tmp_path: Path) -> None:
    simulate(tiny(text, rounds=1), tmp_path / "run")
    done = fedtlu("export", tmp_path / "run", "--to", tmp_path / "to", "--best")
    assert done.code == 2
    assert "--best: got True; expected a run that kept its best model" in done.stderr
    assert not (tmp_path / "to").exists()


def test_errors_of_export_name_its_own_arguments(fedtlu, text: Path, tmp_path: Path) -> None:
    simulate(tiny(text, rounds=1), tmp_path / "run")
    (tmp_path / "file").touch()
    blocked = fedtlu("export", tmp_path / "run", "--to", tmp_path / "file" / "to")
    assert blocked.code == 1
    assert "put that right, then do the same again" in blocked.stderr
    (weights,) = (tmp_path / "run").glob("checkpoints/*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    damaged = fedtlu("export", tmp_path / "run", "--to", tmp_path / "to")
    assert damaged.code == 2
    assert "RUN_DIR: got" in damaged.stderr
    assert "model.safetensors was changed" in damaged.stderr
