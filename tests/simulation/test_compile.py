"""torch.compile in local training: optional, and the same to rounding."""

import functools
import shutil

import pytest
import torch
from support.federations import tiny, write_text

from fedtlu_fast import simulate

needs_compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")


@pytest.mark.parametrize(
    "backend",
    ["eager", pytest.param("inductor", marks=[pytest.mark.slow, needs_compiler])],
)
def test_compiled_steps_agree_and_are_the_same_in_every_executor(tmp_path, monkeypatch, backend):
    """Without inductor the steps are traced and run as they are; to compile them takes half a minute."""
    calls = []

    def compiled(function, **options):
        calls.append(options)
        return functools.partial(torch_compile, backend=backend)(function, **options)

    torch_compile = torch.compile
    monkeypatch.setattr(torch, "compile", compiled)
    text = write_text(tmp_path / "text.txt")
    plain = simulate(tiny(text, rounds=2))
    assert calls == []
    execution = {"executor": "serial", "clients_per_batch": 1, "engine": "torch", "compile": "default"}
    found = simulate(tiny(text, rounds=2, execution=execution))
    assert calls
    torch.testing.assert_close(found.params, plain.params, rtol=1e-3, atol=1e-4)
    assert not torch.equal(found.params, simulate(tiny(text, rounds=1)).params)
