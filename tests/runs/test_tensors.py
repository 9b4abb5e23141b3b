import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fedtlu_fast.runs.tensors import load_tensors


@pytest.mark.parametrize("name", [b"plain", b"p\xff"])
def test_tensors_of_any_path_can_be_read(tmp_path: Path, name: bytes) -> None:
    path = tmp_path / os.fsdecode(name)
    save_file({"a": torch.ones(2)}, path)
    assert load_tensors(path)["a"].tolist() == [1, 1]
