"""torch.compile in local training: optional, and the same to rounding."""

import shutil

import pytest
import torch
from support.federations import tiny, write_text

from fedtlu_fast import simulate

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")


@pytest.mark.slow
@needs_compiler
def test_compiled_steps_agree_and_are_the_same_in_every_executor(tmp_path):
    text = write_text(tmp_path / "text.txt")
    plain = simulate(tiny(text, rounds=2))
    execution = {"executor": "serial", "at_once": 1, "engine": "torch", "compile": "default"}
    found = simulate(tiny(text, rounds=2, execution=execution))
    torch.testing.assert_close(found.params, plain.params, rtol=1e-3, atol=1e-4)
    assert not torch.equal(found.params, simulate(tiny(text, rounds=1)).params)
