import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from support.model_zoo import gpt2
from torch import Tensor

from fedtlu_fast import InputError, layer_stats
from fedtlu_fast.changes import score
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.runs.as_json import dump_json
from fedtlu_fast.scoring import score_blocks, score_layers

Tensors = dict[str, Tensor]


def tensors(seed: int, dtype: torch.dtype = torch.float32, layers: int = 12) -> Tensors:
    draws = torch.Generator().manual_seed(seed)
    found = {"embed.weight": torch.randn(20, 4, generator=draws)}
    for index in range(layers):
        found[f"h.{index}.w"] = torch.randn(4, 4, generator=draws) + 0.05 * index
        found[f"h.{index}.b"] = torch.randn(4, generator=draws)
    return {name: tensor.to(dtype) for name, tensor in found.items()}


def save(path: Path, content: Tensors) -> Path:
    save_file(content, path)
    return path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return save(tmp_path / "before.safetensors", tensors(1)), save(tmp_path / "after.safetensors", tensors(2))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("granularity", ["block", "tensor"])
def test_scores_are_those_of_the_change_in_float64(
    tmp_path: Path, dtype: torch.dtype, granularity: Any
) -> None:
    old, new = tensors(1, dtype), tensors(2, dtype)
    files = save(tmp_path / "a.safetensors", old), save(tmp_path / "b.safetensors", new)
    found = score(*files, granularity=granularity, ddof=0)
    delta = {layer.name: new[layer.name].double() - old[layer.name].double() for layer in found.layout.layers}
    assert delta.keys() == old.keys()
    stats = layer_stats(delta, backend="reference")
    scores = score_layers(stats, ddof=0)
    torch.testing.assert_close(found.scores.score, scores.score, rtol=1e-12, atol=0)
    torch.testing.assert_close(found.scores.excess, scores.excess, rtol=1e-9, atol=1e-15)
    layout = ParameterLayout.from_shapes({name: tuple(t.shape) for name, t in delta.items()}, granularity)
    torch.testing.assert_close(found.block_scores, score_blocks(scores, layout, stats), rtol=1e-9, atol=1e-15)


def test_excess_of_a_change_known_by_hand(tmp_path: Path) -> None:
    before = save(tmp_path / "a.safetensors", {"w": torch.zeros(2), "v": torch.ones(3)})
    after = save(tmp_path / "b.safetensors", {"w": torch.tensor([1.0, 3.0]), "v": torch.ones(3)})
    found = score(before, after, ddof=0)
    named = dict(zip(found.scores.names, found.scores.excess.tolist(), strict=True))
    assert named == {"v": 0.0, "w": 4.0}
    assert dict(zip(found.scores.names, found.scores.degenerate.tolist(), strict=True)) == {
        "v": True,
        "w": False,
    }


def test_blocks_are_in_natural_order(pair: tuple[Path, Path]) -> None:
    found = score(*pair)
    assert [block.name for block in found.layout.blocks if block.name.startswith("h.")] == [
        f"h.{index}" for index in range(12)
    ]
    assert [layer.name for layer in found.layout.layers][:3] == ["embed.weight", "h.0.b", "h.0.w"]


def test_ranking_is_json_and_best_first(pair: tuple[Path, Path]) -> None:
    found = json.loads(dump_json(score(*pair).as_json()))
    blocks = [row for row in found["blocks"] if row["group"]]
    assert [row["rank"] for row in blocks] == list(range(1, 13))
    assert [row["score"] for row in blocks] == sorted((row["score"] for row in blocks), reverse=True)
    assert [row["name"] for row in found["blocks"] if row["rank"] is None] == ["embed"]
    excess = [row["excess"] for row in found["layers"]]
    assert excess == sorted(excess, reverse=True)
    weights = [row for row in found["layers"] if row["name"].endswith(".w")]
    assert [row["rank"] for row in weights] == list(range(1, 13))
    assert {row["like"] for row in weights} == {12}
    assert {"score", "excess", "l2", "abs_max", "count", "nonfinite", "mean", "std"} <= weights[0].keys()


@pytest.mark.parametrize(
    ("names", "alike_by"), [(("h.0.a.w", "h.1.a.w"), "place"), (("in.w", "out.w"), "shape")]
)
def test_ranking_says_whether_shape_alone_makes_like(
    tmp_path: Path, names: tuple[str, ...], alike_by: str
) -> None:
    files = [
        save(tmp_path / side, {name: (place + 1) * torch.arange(4.0) for place, name in enumerate(names)})
        for side in ("a.safetensors", "b.safetensors")
    ]
    found = score(*files).as_json()
    assert {row["alike_by"] for row in (*found["blocks"], *found["layers"])} == {alike_by}


def test_layers_with_nan_rank_last_and_say_how_many(tmp_path: Path) -> None:
    new = tensors(2)
    new["h.5.w"][0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    files = save(tmp_path / "a.safetensors", tensors(1)), save(tmp_path / "b.safetensors", new)
    found = json.loads(dump_json(score(*files).as_json()))
    last = next(row for row in found["layers"] if row["name"] == "h.5.w")
    assert (last["nonfinite"], last["degenerate"], last["rank"]) == (3.0, True, 12)


def test_model_directories_and_shards_score_like_single_files(
    tmp_path: Path, pair: tuple[Path, Path]
) -> None:
    expected = score(*pair)
    folder, shards, lone = (tmp_path / name for name in ("folder", "shards", "lone"))
    for path in (folder, shards, lone):
        path.mkdir()
    save(folder / "model.safetensors", tensors(1))
    save(lone / "adapter.safetensors", tensors(1))
    content = list(tensors(1).items())
    parts = {"model-1.safetensors": dict(content[:9]), "model-2.safetensors": dict(content[9:])}
    for name, part in parts.items():
        save(shards / name, part)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (shards / "model.safetensors.index.json").write_text(json.dumps(index))
    for before in (folder, shards, lone):
        found = score(before, pair[1])
        assert found.layout == expected.layout
        assert torch.equal(found.block_scores, expected.block_scores)


def test_checkpoint_of_a_model_has_the_groups_of_the_model(tmp_path: Path) -> None:
    model = gpt2(layers=11)
    layout = ParameterLayout.from_module(model)
    before = save(tmp_path / "a.safetensors", {k: v.detach().clone() for k, v in model.named_parameters()})
    after = save(tmp_path / "b.safetensors", {k: v.detach() + 0.1 for k, v in model.named_parameters()})
    found = score(before, after).layout
    names = [[found.blocks[index].name for index in group.blocks] for group in found.groups]
    assert names == [[layout.blocks[index].name for index in group.blocks] for group in layout.groups]


def test_integers_are_skipped_and_named(tmp_path: Path) -> None:
    extra = {
        "steps": torch.tensor([1]),
        "mask": torch.tensor([True]),
        "ids": torch.arange(3, dtype=torch.uint8),
    }
    files = [save(tmp_path / f"{seed}.safetensors", {**tensors(seed), **extra}) for seed in (1, 2)]
    found = score(*files)
    assert set(found.skipped) == extra.keys()
    assert not set(found.scores.names) & extra.keys()
    only = save(tmp_path / "only.safetensors", extra)
    with pytest.raises(InputError, match=r"BEFORE.*floating-point"):
        score(only, only)


def test_checkpoints_may_differ_in_dtype(tmp_path: Path) -> None:
    before = save(tmp_path / "a.safetensors", tensors(1, torch.bfloat16))
    after = save(tmp_path / "b.safetensors", tensors(2, torch.float32))
    delta = tensors(2)["h.3.w"].double() - tensors(1, torch.bfloat16)["h.3.w"].double()
    found = score(before, after)
    assert found.stats.l2[found.scores.names.index("h.3.w")] == pytest.approx(float(delta.norm()), rel=1e-12)


def test_missing_tensors_are_named_on_their_side(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    fewer = tensors(2)
    for name in ("h.10.w", "h.9.w", "h.9.b"):
        del fewer[name]
    less = save(tmp_path / "less.safetensors", fewer)
    with pytest.raises(InputError, match=r"AFTER: got 'no tensor h\.9\.b and 2 more'"):
        score(pair[0], less, strict=True)
    with pytest.raises(InputError, match=r"BEFORE: got 'no tensor h\.9\.b and 2 more'"):
        score(less, pair[1], strict=True)
    found = score(pair[0], less)
    assert found.left_out == tuple(f"{name}: not in AFTER" for name in ("h.9.b", "h.9.w", "h.10.w"))
    assert len(found.scores) == len(tensors(1)) - 3
    assert "3 layers not compared" in str(found)


def test_other_shapes_are_named(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    other = save(tmp_path / "other.safetensors", {**tensors(2), "h.3.w": torch.zeros(4, 5)})
    with pytest.raises(InputError, match=r"AFTER: h\.3\.w: got \(4, 5\); expected shape \(4, 4\)"):
        score(pair[0], other, strict=True)
    found = score(pair[0], other)
    assert found.left_out == ("h.3.w: shape (4, 4) in BEFORE, (4, 5) in AFTER",)
    assert "h.3.w" not in found.scores.names


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("exit 3",)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth", ".ckpt", ".pkl", ".safetensors", ""])
@pytest.mark.parametrize("zipped", [True, False])
def test_no_code_in_pickles_runs(
    tmp_path: Path,
    pair: tuple[Path, Path],
    suffix: str,
    zipped: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bad = tmp_path / f"model{suffix}"
    if zipped:
        torch.save({"w": _Trap()}, bad)
    else:
        bad.write_bytes(pickle.dumps(_Trap(), protocol=2))
    monkeypatch.setattr(os, "system", lambda _: pytest.fail("the pickle ran code"))
    with pytest.raises(InputError, match="AFTER"):
        score(pair[0], bad)
    folder = tmp_path / "folder"
    folder.mkdir()
    bad.rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"this pickle holds .*\.system and was not opened"):
        score(pair[0], folder)


def _header(content: bytes, claimed: int | None = None) -> bytes:
    return (len(content) if claimed is None else claimed).to_bytes(8, "little") + content


BAD_FILES = {
    "empty": b"",
    "short": b"\x01\x02",
    "bomb": _header(b"{}", 2**63),
    "large claim": _header(b"{}", 90_000_000),
    "no JSON": _header(b"\xff\xfe\x00\x01"),
    "list": _header(b"[]"),
    "deep": _header(b"[" * 50_000),
    "offsets beyond the end": _header(b'{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}') + b"\0" * 8,
    "offsets reversed": _header(b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}') + b"\0" * 4,
    "shape overflow": _header(
        b'{"w":{"dtype":"F32","shape":[4294967296,4294967296,16],"data_offsets":[0,4]}}'
    )
    + b"\0" * 4,
    "shape beyond the bytes": _header(b'{"w":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}') + b"\0" * 4,
    "negative shape": _header(b'{"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}') + b"\0" * 4,
    "unknown dtype": _header(b'{"w":{"dtype":"F77","shape":[1],"data_offsets":[0,4]}}') + b"\0" * 4,
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_hostile_files_are_one_clear_error(tmp_path: Path, pair: tuple[Path, Path], content: bytes) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(content)
    for files, side in (((bad, pair[1]), "BEFORE"), ((pair[0], bad), "AFTER")):
        with pytest.raises(InputError, match=rf"{side}: .*bad\.safetensors.*complete safetensors file"):
            score(*files)


def test_file_cut_anywhere_is_one_clear_error(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    whole, bad = pair[0].read_bytes(), tmp_path / "bad.safetensors"
    for cut in (1, 7, 8, 9, 200, len(whole) // 2, len(whole) - 1):
        bad.write_bytes(whole[:cut])
        with pytest.raises(InputError, match="complete safetensors file"):
            score(pair[0], bad)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{}",
        b'{"weight_map": []}',
        b'{"weight_map": {"w": 3}}',
        b'{"weight_map": {"w": ["a"]}}',
        b'{"weight_map": {"w": null, "v": "a"}}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"weight_map": {"w": "gone.safetensors"}}',
    ],
)
def test_hostile_index_is_one_clear_error(tmp_path: Path, pair: tuple[Path, Path], content: bytes) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_bytes(content)
    with pytest.raises(InputError, match="AFTER"):
        score(pair[0], folder)


@pytest.mark.parametrize("outside", ["../before.safetensors", "..", "/etc/passwd", "sub/x.safetensors"])
def test_index_that_points_outside_is_refused(tmp_path: Path, pair: tuple[Path, Path], outside: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": outside}}))
    with pytest.raises(InputError, match=r"name of a \.safetensors file in"):
        score(pair[0], folder)


def _two_files(path: Path) -> None:
    path.mkdir()
    for name in ("a", "b"):
        save(path / f"{name}.safetensors", tensors(1))


def test_missing_files_and_odd_directories_are_refused(tmp_path: Path, pair: tuple[Path, Path]) -> None:
    odd: list[Callable[[Path], object]] = [
        lambda path: None,
        lambda path: path.mkdir(),
        _two_files,
    ]
    for number, make in enumerate(odd):
        path = tmp_path / f"odd-{number}"
        make(path)
        with pytest.raises(InputError, match=f"BEFORE: got .*odd-{number}"):
            score(path, pair[1])


def test_tensor_without_elements_is_degenerate_not_fatal(tmp_path: Path) -> None:
    files = [
        save(
            tmp_path / f"{seed}.safetensors",
            {**tensors(seed), "none": torch.empty(0, 3), "one": torch.ones(())},
        )
        for seed in (1, 2)
    ]
    found = score(*files)
    flags = dict(zip(found.scores.names, found.scores.degenerate.tolist(), strict=True))
    assert flags["none"]
    assert flags["one"]
