import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import Tensor, nn

from fedtlu_fast import InputError
from fedtlu_fast.changes import score
from fedtlu_fast.changes.files import open_files
from fedtlu_fast.changes.stored import Checkpoint

W, V = torch.tensor([1.0, 2.0]), torch.tensor([3.0, 5.0, 8.0])


def opened(path: Path) -> Checkpoint:
    return open_files("AFTER", path, ExitStack())


def numbers(found: Checkpoint, name: str) -> list[float]:
    return found.tensors[name].values(0, found.tensors[name].count).tolist()


def index(folder: Path, weight_map: dict[str, str], name: str = "model") -> Path:
    path = folder / f"{name}.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return path


def shards(folder: Path, **content: dict[str, Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, tensors in content.items():
        save_file(tensors, folder / f"{name}.safetensors")
    return folder


def test_the_index_says_which_file_holds_which_tensor(tmp_path: Path) -> None:
    folder = shards(tmp_path / "f", a={"w": W, "v": V, "old": W + 1}, b={"v": V + 1})
    path = index(folder, {"w": "a.safetensors", "v": "b.safetensors"})
    for given in (folder, path):
        found = opened(given)
        assert found.tensors.keys() == {"w", "v"}
        assert numbers(found, "v") == (V + 1).tolist()
        (note,) = found.not_read
        assert "old in a.safetensors" in note
        assert "v in a.safetensors" in note


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"w": "a.safetensors", "v": "a.safetensors"}, r"AFTER: v: got 'not in a\.safetensors'"),
        ({"w": "gone.safetensors"}, r"gone\.safetensors.*it does not exist"),
        ({"w": "pipe.safetensors"}, r"pipe\.safetensors.*not a regular file"),
        ({"w": "sub.safetensors"}, r"sub\.safetensors.*not a regular file"),
        ({"w": "weights.bin"}, r"name of a \.safetensors file"),
        ({"w": ""}, r"name of a \.safetensors file"),
        ({"w": "a.safetensors\0"}, r"name of a \.safetensors file"),
        ({}, "weight_map"),
    ],
)
def test_what_the_index_names_must_be_there(tmp_path: Path, weight_map: dict[str, str], message: str) -> None:
    folder = shards(tmp_path / "f", a={"w": W})
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "sub.safetensors").mkdir()
    index(folder, weight_map)
    with pytest.raises(InputError, match=message):
        opened(folder)


def test_a_tensor_twice_in_the_index_is_refused(tmp_path: Path) -> None:
    folder = shards(tmp_path / "f", a={"w": W}, b={"w": W})
    path = folder / "model.safetensors.index.json"
    path.write_text('{"weight_map": {"w": "a.safetensors", "w": "b.safetensors"}}')
    with pytest.raises(InputError, match="'w' is there twice"):
        opened(folder)


def test_one_file_beside_an_index_is_read_and_the_other_named(tmp_path: Path) -> None:
    folder = shards(tmp_path / "f", model={"w": W}, a={"w": W + 1})
    index(folder, {"w": "a.safetensors"})
    found = opened(folder)
    assert numbers(found, "w") == W.tolist()
    assert found.not_read == (
        "model.safetensors is read; a.safetensors, model.safetensors.index.json not read",
    )
    index(folder, {"w": "a.safetensors", "v": "model.safetensors"})
    save_file({"v": V, "w": W}, folder / "model.safetensors")
    found = opened(folder)
    assert numbers(found, "w") == (W + 1).tolist()
    assert numbers(found, "v") == V.tolist()


def test_an_index_of_another_name_is_read_when_it_is_the_only_one(tmp_path: Path) -> None:
    folder = shards(tmp_path / "f", a={"w": W}, b={"v": V}, adapter={"x": W})
    index(folder, {"w": "a.safetensors", "v": "b.safetensors"}, name="diffusion")
    found = opened(folder)
    assert found.tensors.keys() == {"w", "v"}
    assert found.not_read == ("diffusion.safetensors.index.json does not name adapter.safetensors: not read",)
    index(folder, {"w": "a.safetensors"}, name="other")
    with pytest.raises(InputError, match="expected a directory with model"):
        opened(folder)


def test_paths_that_the_system_refuses_are_one_message() -> None:
    with pytest.raises(InputError, match="AFTER"):
        opened(Path("x" * 5000))


class Tied(nn.Module):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.head = nn.Embedding(5, 3), nn.Linear(3, 5, bias=False)
        self.norm = nn.LayerNorm(3)
        self.head.weight = self.embed.weight


def test_tied_tensors_count_once_whatever_the_file_calls_them(tmp_path: Path) -> None:
    paths = []
    for seed in (1, 2):
        model = Tied(seed)
        save_model(model, tmp_path / f"model-{seed}.safetensors")  # one name, the other in the metadata
        state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        save_file(state, tmp_path / f"both-{seed}.safetensors")
        del state["head.weight"]
        save_file(state, tmp_path / f"one-{seed}.safetensors")
        paths.append({kind: tmp_path / f"{kind}-{seed}.safetensors" for kind in ("model", "both", "one")})
    expected = score(paths[0]["one"], paths[1]["one"])
    assert set(expected.scores.names) == {"embed.weight", "norm.weight", "norm.bias"}
    for before, after in (
        ("model", "model"),
        ("model", "one"),
        ("one", "model"),
        ("both", "one"),
        ("one", "both"),
    ):
        found = score(paths[0][before], paths[1][after])
        assert found.stats.l2.tolist() == expected.stats.l2.tolist(), (before, after)
        assert len(found.tied) == 1
    save_file({**state, "head.weight": torch.zeros(5, 3)}, tmp_path / "zero.safetensors")
    with pytest.raises(InputError, match=r"BEFORE: got 'no tensor head\.weight'"):
        score(paths[0]["one"], tmp_path / "zero.safetensors", strict=True)


EIGHT_BITS = [torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]


@pytest.mark.parametrize("dtype", EIGHT_BITS)
def test_eight_bits_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.tensor([0.5, -2.0, 0.0]).to(dtype)}, path)
    assert numbers(opened(path), "w") == [0.5, -2.0, 0.0]


@pytest.mark.parametrize(("dtype", "size"), [("F4", 16), ("F6_E2M3", 24), ("F6_E3M2", 24)])
def test_what_cannot_be_converted_is_named(tmp_path: Path, dtype: str, size: int) -> None:
    path = tmp_path / "a.safetensors"
    header = json.dumps({"h.0.w": {"dtype": dtype, "shape": [8, 4], "data_offsets": [0, size]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(size))
    with pytest.raises(InputError, match=rf"BEFORE: h\.0\.w: got '{dtype}'; expected a dtype"):
        score(path, path)


def test_complex_and_integers_are_left_out_and_a_mismatch_is_named(tmp_path: Path) -> None:
    a, b, c = (tmp_path / f"{name}.safetensors" for name in "abc")
    save_file({"w": W, "c": torch.complex(W, W), "n": torch.ones(2, dtype=torch.uint16)}, a)
    save_file({"model.w": W, "model.x": torch.ones(3, dtype=torch.int8)}, b)
    found = score(a, b)
    assert found.scores.names == ("w",)
    assert found.skipped == ("c", "model.x", "n")
    save_file({"w": torch.ones(2, dtype=torch.int8), "v": V}, c)
    save_file({"w": W, "v": V}, a)
    with pytest.raises(InputError, match="AFTER: w: got 'I8'; expected floating-point numbers"):
        score(a, c, strict=True)
    assert score(a, c).left_out == ("w: not in AFTER, which holds w as I8",)
