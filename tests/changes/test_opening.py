"""Tests the forms in which a model may be given: .bin files, names on the hub, GGUF files."""

import importlib.util
import json
import struct
import subprocess
import sys

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from fedtlu_fast import InputError, hub_access, score
from fedtlu_fast.changes import hub, pickled

SHA = "0123456789abcdef0123456789abcdef01234567"


def tensors(seed):
    draws = torch.Generator().manual_seed(seed)
    return {f"h.{at}.w": torch.randn(4, 4, generator=draws) for at in range(3)}


@pytest.fixture
def after(tmp_path):
    path = tmp_path / "after.safetensors"
    save_file(tensors(2), path)
    return path


@pytest.fixture
def expected(after):
    return score(tensors(1), after).stats.l2.tolist()


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("wrapped", [False, True])
def test_state_dicts_of_torch_save(tmp_path, after, expected, old, wrapped):
    path = tmp_path / "model.bin"
    content = {"state_dict": tensors(1), "epoch": 3} if wrapped else tensors(1) | {"epoch": 3}
    torch.save(content, path, _use_new_zipfile_serialization=not old)
    found = score(path, after)
    assert found.stats.l2.tolist() == expected
    assert found.notes == (
        "BEFORE: model.bin: a pickle, read with weights_only=True, so that no code in it ran",
    )


def test_pickles_in_directories_are_read_only_without_safetensors(tmp_path, after, expected):
    folder = tmp_path / "model"
    folder.mkdir()
    names = list(tensors(1))
    for place, part in enumerate((names[:1], names[1:]), start=1):
        content = {name: tensors(1)[name] for name in part}
        torch.save(content, folder / f"pytorch_model-{place:05d}-of-00002.bin")
    placed = {name: f"pytorch_model-0000{1 + (name != names[0])}-of-00002.bin" for name in names}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": placed}))
    torch.save({"lr": 1.0}, folder / "training_args.bin")
    found = score(folder, after)
    assert found.stats.l2.tolist() == expected
    assert any("training_args.bin: not read" in line for line in found.not_read)
    assert "pytorch_model-00001-of-00002.bin, pytorch_model-00002-of-00002.bin" in found.notes[0]
    save_file({name: own + 1 for name, own in tensors(1).items()}, folder / "model.safetensors")
    assert score(folder, after).stats.l2.tolist() != expected
    assert score(folder, after).notes == ()


@pytest.mark.parametrize("content", [3, [torch.ones(2)], {"a": 1}, {1: torch.ones(2)}])
def test_files_of_torch_save_without_a_state_dict_are_one_message(tmp_path, after, content):
    torch.save(content, tmp_path / "odd.bin")
    with pytest.raises(InputError, match=r"BEFORE: .*odd\.bin.*a file of torch.save that holds a state dict"):
        score(tmp_path / "odd.bin", after)


def test_damaged_files_of_torch_save_are_one_message(tmp_path, after):
    path = tmp_path / "cut.bin"
    torch.save(tensors(1), path)
    whole = path.read_bytes()
    for content in (b"", whole[:30], whole[: len(whole) // 2], b"PK\x03\x04" + bytes(60), bytes(100)):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"BEFORE: .*cut\.bin"):
            score(path, after)


def test_pages_of_pickles_are_given_back(tmp_path, monkeypatch):
    path = tmp_path / "model.bin"
    torch.save(tensors(1), path)
    given = []
    monkeypatch.setattr(pickled, "_give_back", given.append)
    held = pickled.tensors_of("BEFORE", path)
    piece = held["h.1.w"].flat(2, 9)
    assert piece.tolist() == tensors(1)["h.1.w"].flatten()[2:9].tolist()
    assert len(given) == 1


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the hub with one model in two revisions, and no network."""
    folder = tmp_path / "hub" / "models--owner--tiny"
    for sha, ref, seed in ((SHA, "main", 1), (SHA[::-1], "step1", 3)):
        (folder / "snapshots" / sha).mkdir(parents=True)
        (folder / "refs").mkdir(exist_ok=True)
        (folder / "refs" / ref).write_text(sha)
        save_file(tensors(seed), folder / "snapshots" / sha / "model.safetensors")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub_access, "_silence", lambda endpoint, moment: "no route to host")
    return folder


def test_names_on_the_hub_are_read_from_the_cache(cache, after, expected, tmp_path, monkeypatch):
    assert score("owner/tiny", after).stats.l2.tolist() == expected
    other = score("owner/tiny@step1", after).stats.l2.tolist()
    assert other == score(tensors(3), after).stats.l2.tolist()
    assert other != expected
    # A directory of that name comes first.
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "tiny").mkdir(parents=True)
    save_file(tensors(2), tmp_path / "owner" / "tiny" / "model.safetensors")
    assert score("owner/tiny", after).stats.l2.tolist() == [0.0] * 3


@pytest.mark.parametrize("name", ["owner/none", "none", "owner/tiny@gone"])
def test_names_without_network_and_copy_are_one_message(cache, after, name):
    expected = (
        rf"BEFORE: got '{name}'; expected a file or directory here, or a name on the hub, which cannot be "
    )
    with pytest.raises(InputError, match=rf"{expected}asked \(no route to host\); the cache holds no copy"):
        score(name, after)


def test_a_cached_configuration_without_weights_is_one_message(cache, after):
    (cache / "snapshots" / SHA / "model.safetensors").unlink()
    (cache / "snapshots" / SHA / "config.json").write_text("{}")
    with pytest.raises(
        InputError, match="BEFORE: got 'owner/tiny'; expected a model whose weights are in the"
    ):
        score("owner/tiny", after)


@pytest.mark.parametrize("name", ["gone.safetensors", "a/b/c", "./gone", "gone.bin"])
def test_paths_are_never_asked_for_on_the_hub(name, after, monkeypatch):
    monkeypatch.setattr(hub, "hub_access", lambda needed: pytest.fail("the hub was asked"))
    with pytest.raises(InputError, match=r"BEFORE: .*that exists"):
        score(name, after)


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        (["config.json", "model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (
            ["model.safetensors.index.json", "model-2-of-2.safetensors", "model-1-of-2.safetensors", "x.bin"],
            ["model.safetensors.index.json", "model-2-of-2.safetensors", "model-1-of-2.safetensors"],
        ),
        (["adapter_config.json", "adapter_model.bin"], ["adapter_config.json", "adapter_model.bin"]),
        (["pytorch_model.bin", "training_args.bin", "original/model.safetensors"], ["pytorch_model.bin"]),
        (["README.md"], []),
    ],
)
def test_only_files_with_weights_are_fetched(files, wanted, monkeypatch, tmp_path, after):
    import huggingface_hub

    asked = []

    class Api:
        def list_repo_files(self, name, revision):
            assert (name, revision) == ("owner/tiny", None)
            return files

    def fetch(name, *, revision, allow_patterns, local_files_only):
        assert not local_files_only
        asked.append(allow_patterns)
        save_file(tensors(1), tmp_path / "model.safetensors")
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr(hub_access, "_silence", lambda endpoint, moment: "")
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    if not wanted:
        with pytest.raises(InputError, match=r"expected a repository with weights"):
            score("owner/tiny", after)
    else:
        score("owner/tiny", after)
        assert asked == [wanted]


def test_scores_import_torch_and_nothing_heavier(after, tmp_path):
    before = tmp_path / "before.safetensors"
    save_file(tensors(1), before)
    code = (
        "import sys\n"
        "from fedtlu_fast.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert not done.code, done.code\n"
        "heavy = {'transformers', 'datasets', 'sklearn', 'matplotlib', 'scipy', 'pandas', 'peft'}\n"
        "print(sorted(heavy & sys.modules.keys()), 'torch' in sys.modules, file=sys.stderr)\n"
    )
    arguments = ["score", str(before), str(after), "--json"]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[] True"


def test_bodies_with_different_heads_are_paired_by_the_prefix_that_most_names_share(tmp_path):
    body = tensors(1)
    before = body | {"pooler.w": torch.ones(2, 2)}
    after = {f"bert.{name}": own + 1 for name, own in body.items()} | {"head.w": torch.ones(3)}
    found = score(before, after)
    assert found.scores.names == tuple(body)
    assert found.left_out == ("pooler.w: not in AFTER", "head.w: not in BEFORE")
    with pytest.raises(InputError, match=r"AFTER: got 'no tensor pooler\.w'"):
        score(before, after, strict=True)
    with pytest.raises(InputError, match=r"AFTER: got .*; expected a state of the same model as BEFORE"):
        score(body, {"other": torch.ones(3)})


@pytest.mark.skipif(importlib.util.find_spec("gguf") is not None, reason="the package is there")
def test_a_missing_package_for_gguf_is_named(tmp_path, after):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"the package gguf; it cannot be found. Use pip install"):
        score(path, path)


@pytest.mark.skipif(importlib.util.find_spec("gguf") is None, reason="wants gguf")
def test_gguf_files_are_dequantised_a_piece_at_a_time(tmp_path):
    import gguf
    from gguf.quants import dequantize, quantize

    draws = torch.Generator().manual_seed(1)
    kinds = {"Q8_0": 64, "Q4_1": 64, "F32": 5, "F16": 6, "BF16": 8}
    values = {}
    for side in range(2):
        writer = gguf.GGUFWriter(tmp_path / f"{side}.gguf", "llama")
        writer.add_array("tokenizer.ggml.tokens", ["one", "two", "three"])
        writer.add_array("numbers", [1, 2, 3])
        for kind, width in kinds.items():
            code = gguf.GGMLQuantizationType[kind]
            numbers = torch.randn(3, width, generator=draws).numpy()
            raw = quantize(numbers, code)
            values[side, kind] = torch.from_numpy(dequantize(raw, code)).double()
            writer.add_tensor(f"blk.0.{kind}", raw, raw_dtype=code)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    found = score(tmp_path / "0.gguf", tmp_path / "1.gguf")
    for name, layer in zip(found.scores.names, found.layout.layers, strict=True):
        kind = name.removeprefix("blk.0.")
        change = values[1, kind] - values[0, kind]
        assert layer.shape == change.shape
        index = found.scores.names.index(name)
        assert float(found.stats.l2[index]) == pytest.approx(float(change.norm()), rel=1e-12)
        assert float(found.stats.abs_max[index]) == float(change.abs().max())
    whole = (tmp_path / "0.gguf").read_bytes()
    path = tmp_path / "bad.gguf"
    for content in (
        b"GGUF", whole[:-200], whole[:100], b"GGUF" + struct.pack("<IQQ", 3, 2**60, 2**60),
        b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 2**62), b"GGUF" + struct.pack("<IQQ", 1, 0, 0), whole[::-1],
    ):  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"AFTER: .*bad\.gguf.*a complete GGUF file"):
            score(tmp_path / "0.gguf", path)
