import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support.federations import snapshot
from support.model_zoo import ResNet, Tied, gpt2
from torch import nn

from fedtlu_fast import InputError, StorageError
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.part_memory import Memory, PartMemory
from fedtlu_fast.runs.sealed import seal_json, unseal_json
from fedtlu_fast.simulation.server import initial_state
from fedtlu_fast.simulation.state import ServerState, load_checkpoint, save_checkpoint

IDENTITY = {"config_sha256": "c", "data_sha256": "d"}


def state_of(model: nn.Module, index: int = 1) -> tuple[ParameterLayout, ServerState]:
    layout = ParameterLayout.from_module(model)
    start = initial_state(layout, model)
    draws = torch.Generator().manual_seed(index)
    noise = (
        torch.randn(start.params.shape, generator=draws),
        torch.randn(start.buffers.shape, generator=draws),
    )
    return layout, ServerState(index, start.params + noise[0], start.buffers + noise[1])


def losses_of(losses: dict[int, float]) -> Memory:
    return {"Participation": PartMemory(clients={"loss": losses})}


def personal_of(own: dict[int, Any]) -> Memory:
    return {"Personal": PartMemory(clients={"values": own})}


@pytest.mark.parametrize("model", [gpt2(), ResNet(), Tied()], ids=lambda model: type(model).__name__)
def test_state_comes_back_bit_for_bit(model: nn.Module, tmp_path: Path) -> None:
    layout, state = state_of(model)
    save_checkpoint(tmp_path, layout, state, IDENTITY, 2)
    found = load_checkpoint(tmp_path, layout, IDENTITY)
    assert found is not None
    assert found.round == 1
    assert torch.equal(found.params, state.params)
    assert torch.equal(found.buffers, state.buffers)


def test_losses_come_back_bit_for_bit_and_only_where_there_are_any(tmp_path: Path) -> None:
    layout, state = state_of(gpt2())
    losses = {7: 0.1, 10**12: float("-inf"), 0: 1e-300}
    save_checkpoint(tmp_path, layout, replace(state, memory=losses_of(losses)), IDENTITY, 2)
    found = load_checkpoint(tmp_path, layout, IDENTITY)
    assert found is not None
    assert found.memory == losses_of(losses)
    save_checkpoint(tmp_path, layout, state, IDENTITY, 2)
    assert not (tmp_path / "round-000001" / "memory.safetensors").exists()
    assert load_checkpoint(tmp_path, layout, IDENTITY) is not None


def test_what_clients_keep_comes_back_bit_for_bit_and_damaged_is_passed_over(tmp_path: Path) -> None:
    layout, state = state_of(gpt2())
    own = {
        10**12: np.array([-0.0, 1e-40, 3], np.float32),
        7: np.array([1, 2, float("inf")], np.float32),
    }
    save_checkpoint(tmp_path, layout, replace(state, memory=personal_of(own)), IDENTITY, 2)
    found = load_checkpoint(tmp_path, layout, IDENTITY)
    assert found is not None
    kept = found.memory["Personal"].clients["values"]
    assert {client: np.asarray(value).tobytes() for client, value in kept.items()} == {
        client: value.tobytes() for client, value in own.items()
    }
    assert all(np.asarray(value).base is None for value in kept.values()), "no view of all of them"
    save_checkpoint(tmp_path, layout, replace(state, round=2, memory=personal_of(own)), IDENTITY, 2)
    file = tmp_path / "round-000002" / "memory.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    found = load_checkpoint(tmp_path, layout, IDENTITY)
    assert found is not None
    assert found.round == 1


@pytest.mark.parametrize("damage", ["flipped", "missing", "of others", "unmentioned"])
def test_checkpoint_with_damaged_losses_is_passed_over(tmp_path: Path, damage: str) -> None:
    layout, state = state_of(gpt2())
    save_checkpoint(tmp_path, layout, replace(state, memory=losses_of({1: 2.0})), IDENTITY, 2)
    save_checkpoint(
        tmp_path, layout, replace(state, round=2, memory=losses_of({1: 2.0, 5: 3.0})), IDENTITY, 2
    )
    newest = tmp_path / "round-000002"
    file = newest / "memory.safetensors"
    if damage == "flipped":
        content = bytearray(file.read_bytes())
        content[-3] ^= 1
        file.write_bytes(content)
    elif damage == "missing":
        file.unlink()
    elif damage == "of others":
        file.write_bytes((tmp_path / "round-000001" / "memory.safetensors").read_bytes())
    else:
        facts = json.loads((newest / "state.json").read_text())
        (newest / "state.json").write_text(json.dumps({**facts, "memory_sha256": None}))
    found = load_checkpoint(tmp_path, layout, IDENTITY)
    assert found is not None
    assert found.round == 1


def test_nan_and_negative_zero_come_back_too(tmp_path: Path) -> None:
    layout, state = state_of(gpt2())
    state.params[:3] = torch.tensor([float("nan"), -0.0, float("inf")])
    save_checkpoint(tmp_path, layout, state, IDENTITY, 1)
    found = load_checkpoint(tmp_path, layout, IDENTITY)
    assert found is not None
    assert torch.equal(found.params.view(torch.int32), state.params.view(torch.int32))


def test_weights_have_the_names_that_other_tools_know(tmp_path: Path) -> None:
    model = ResNet()
    layout, state = state_of(model)
    save_checkpoint(tmp_path, layout, state, IDENTITY, 1)
    tensors = load_file(tmp_path / "round-000001" / "model.safetensors")
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    assert unexpected == []
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert torch.equal(layout.flatten(model), state.params)


def test_digest_is_that_of_the_vector_s_bytes() -> None:
    params = torch.tensor([1.0, -2.5, 3.0])
    expected = hashlib.sha256(b"\x00\x00\x80\x3f\x00\x00\x20\xc0\x00\x00\x40\x40").hexdigest()
    assert ServerState(0, params, torch.empty(0)).sha256() == expected
    assert ServerState(0, torch.stack([params, params], 1)[:, 0], torch.empty(0)).sha256() == expected


def test_only_the_latest_are_retained_in_order_of_their_numbers(tmp_path: Path) -> None:
    layout, _ = state_of(gpt2())
    for index in (9, 10, 999_999, 1_000_000, 1_000_001):
        save_checkpoint(tmp_path, layout, state_of(gpt2(), index)[1], IDENTITY, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["round-1000000", "round-1000001"]
    found = load_checkpoint(tmp_path, layout, IDENTITY)
    assert found is not None
    assert found.round == 1_000_001


def test_no_checkpoint_yet_is_none(tmp_path: Path) -> None:
    layout, _ = state_of(gpt2())
    assert load_checkpoint(tmp_path / "nowhere", layout, IDENTITY) is None
    assert load_checkpoint(tmp_path, layout, IDENTITY) is None


def test_writing_a_round_again_replaces_it(tmp_path: Path) -> None:
    layout, state = state_of(gpt2())
    save_checkpoint(tmp_path, layout, state, IDENTITY, 2)
    save_checkpoint(tmp_path, layout, ServerState(1, state.params * 2, state.buffers), IDENTITY, 2)
    found = load_checkpoint(tmp_path, layout, IDENTITY)
    assert found is not None
    assert torch.equal(found.params, state.params * 2)


@pytest.mark.parametrize(("key", "words"), [("config_sha256", "settings"), ("data_sha256", "data")])
def test_checkpoint_of_other_settings_or_data_is_refused(tmp_path: Path, key: str, words: str) -> None:
    layout, state = state_of(gpt2())
    save_checkpoint(tmp_path, layout, state, IDENTITY, 2)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=f"{words}.*changed since"):
        load_checkpoint(tmp_path, layout, {**IDENTITY, key: "x"})
    assert snapshot(tmp_path) == before
    assert load_checkpoint(tmp_path, layout, {}) is not None, "only what is asked for has to agree"


def test_checkpoint_of_a_model_of_other_layers_is_refused_as_other_settings(tmp_path: Path) -> None:
    layout, state = state_of(gpt2(layers=3))
    save_checkpoint(tmp_path, layout, state, IDENTITY, 2)
    other, _ = state_of(gpt2(layers=4))
    with pytest.raises(InputError, match="changed since"):
        load_checkpoint(tmp_path, other, {**IDENTITY, "config_sha256": "x"})
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(tmp_path, other, IDENTITY)


def test_state_file_says_what_it_is(tmp_path: Path) -> None:
    layout, state = state_of(gpt2(), 42)
    save_checkpoint(tmp_path, layout, state, IDENTITY, 1)
    facts = json.loads((tmp_path / "round-000042" / "state.json").read_text())
    assert facts["round"] == 42
    assert facts["params_sha256"] == state.sha256()
    assert facts["identity"] == IDENTITY
    assert facts["environment"] == {}


def test_nothing_in_a_checkpoint_is_a_pickle(tmp_path: Path) -> None:
    layout, state = state_of(ResNet())
    save_checkpoint(tmp_path, layout, state, IDENTITY, 1)
    assert {path.name for path in (tmp_path / "round-000001").iterdir()} == {
        "model.safetensors",
        "state.json",
    }


def test_no_bit_of_the_state_file_can_change_unseen(tmp_path: Path) -> None:
    layout, state = state_of(nn.Linear(2, 2))
    save_checkpoint(tmp_path, layout, replace(state, memory=losses_of({1: 2.0})), IDENTITY, 2)
    save_checkpoint(tmp_path, layout, replace(state, round=2, memory=losses_of({1: 2.0})), IDENTITY, 2)
    file = tmp_path / "round-000002" / "state.json"
    content = file.read_bytes()
    for place, byte in enumerate(content):
        if chr(byte).isspace():
            continue  # other white space is the same content
        for bit in (1, 4, 32):
            file.write_bytes(content[:place] + bytes([byte ^ bit]) + content[place + 1 :])
            found = load_checkpoint(tmp_path, layout, IDENTITY)
            assert found is not None
            assert found.round == 1, f"byte {place}, bit {bit}"


@pytest.mark.parametrize(
    "change",
    [
        lambda facts: facts | {"more": 1},
        lambda facts: {key: value for key, value in facts.items() if key != "logs"},
        lambda facts: facts | {"round": "2"},
        lambda facts: facts | {"memory_sha256": facts["model_sha256"]},
        lambda facts: facts | {"format": 5},
    ],
)
def test_state_file_with_other_keys_is_damage_even_with_a_digest(
    tmp_path: Path, change: Callable[[dict[str, Any]], dict[str, Any]], caplog: pytest.LogCaptureFixture
) -> None:
    layout, state = state_of(nn.Linear(2, 2))
    for index in (1, 2):
        save_checkpoint(tmp_path, layout, replace(state, round=index), IDENTITY, 2)
    file = tmp_path / "round-000002" / "state.json"
    file.write_text(json.dumps(seal_json(change(unseal_json(file.read_bytes())))))
    found = load_checkpoint(tmp_path, layout, IDENTITY)
    assert found is not None
    assert found.round == 1
    assert "damaged: round-000002 (" in caplog.text
    assert "going on from round-000001" in caplog.text


def test_checkpoint_of_an_earlier_version_is_refused_as_such(tmp_path: Path) -> None:
    layout, state = state_of(nn.Linear(2, 2))
    save_checkpoint(tmp_path, layout, state, IDENTITY, 2)
    old = {"format": 1, "round": 1, "params_sha256": state.sha256(), "buffers_sha256": "", **IDENTITY}
    (tmp_path / "round-000001" / "state.json").write_text(json.dumps(old))
    with pytest.raises(InputError, match=r"an earlier version wrote it.*start it anew"):
        load_checkpoint(tmp_path, layout, IDENTITY)


def test_another_environment_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    layout, state = state_of(nn.Linear(2, 2))
    save_checkpoint(tmp_path, layout, state, IDENTITY, 2, environment={"torch": "2.4", "cpu": "AVX2"})
    for environment, words in ((None, ""), ({"torch": "2.4", "cpu": "AVX2"}, "")):
        assert load_checkpoint(tmp_path, layout, IDENTITY, environment=environment) is not None
        assert caplog.text == words
    load_checkpoint(tmp_path, layout, IDENTITY, environment={"torch": "2.5", "cpu": "AVX2"})
    assert "torch (2.4 then, 2.5 here)" in caplog.text
    assert "AVX2" not in caplog.text


def test_files_of_a_checkpoint_have_the_permissions_that_the_umask_leaves(tmp_path: Path) -> None:
    layout, state = state_of(nn.Linear(2, 2))
    before = os.umask(0o027)
    try:
        save_checkpoint(tmp_path, layout, replace(state, memory=losses_of({1: 2.0})), IDENTITY, 2)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "round-000001").iterdir()}
    assert modes == dict.fromkeys(("model.safetensors", "memory.safetensors", "state.json"), 0o640)


def test_checkpoints_behind_a_link_are_neither_read_nor_written(tmp_path: Path) -> None:
    layout, state = state_of(nn.Linear(2, 2))
    outside, folder = tmp_path / "outside", tmp_path / "run" / "checkpoints"
    save_checkpoint(outside, layout, state, IDENTITY, 2)
    folder.parent.mkdir()
    folder.symlink_to(outside)
    before = snapshot(outside)
    with pytest.raises(InputError, match="a symbolic link, not a folder"):
        load_checkpoint(folder, layout, IDENTITY)
    with pytest.raises(StorageError, match="a symbolic link, not a folder"):
        save_checkpoint(folder, layout, replace(state, round=2), IDENTITY, 1)
    assert snapshot(outside) == before


def test_what_parts_remember_comes_back_whatever_it_is(tmp_path: Path) -> None:
    layout, state = state_of(nn.Linear(2, 2))
    held = PartMemory(
        {"control": torch.tensor([1.0, -0.0]), "steps": torch.tensor([[3]], dtype=torch.int64)},
        {
            "value": {3: np.arange(6, dtype=np.float64).reshape(2, 3), 1: np.zeros((2, 3))},
            "times": {4: 2, 1: 7},
            "rate": {0: 0.1, 9: -0.0},
        },
    )
    memory = {"my.module:Part": held, "my.module:Part#2": PartMemory(clients={"times": {1: 1}})}
    save_checkpoint(tmp_path, layout, replace(state, memory=memory), IDENTITY, 2)
    found = load_checkpoint(tmp_path, layout, IDENTITY)
    assert found is not None
    assert found.memory.keys() == memory.keys()
    assert found.memory["my.module:Part#2"] == memory["my.module:Part#2"]
    again = found.memory["my.module:Part"]
    for name, tensor in held.server.items():
        assert again.server[name].dtype == tensor.dtype
        assert torch.equal(again.server[name], tensor)
    assert again.clients["times"] == {1: 7, 4: 2}
    assert all(isinstance(times, int) for times in again.clients["times"].values())
    assert str(again.clients["rate"]) == "{0: 0.1, 9: -0.0}"
    for client, value in held.clients["value"].items():
        assert np.array_equal(again.clients["value"][client], value)


HARD_NAMES = ("server", "clients", "x/clients/y", "a/b", "numbers", "values", "%2F", "%", "", "a\nb", "ü")


@pytest.mark.parametrize("part", ["Part", *HARD_NAMES])
def test_names_cannot_be_confused(tmp_path: Path, part: str) -> None:
    layout, state = state_of(nn.Linear(2, 2))
    held = PartMemory(
        {name: torch.tensor([index]) for index, name in enumerate(HARD_NAMES)},
        {name: {3: index} for index, name in enumerate(HARD_NAMES)},
    )
    memory = {part: held, f"{part}/clients": held}
    save_checkpoint(tmp_path, layout, replace(state, memory=memory), IDENTITY, 2)
    found = load_checkpoint(tmp_path, layout, IDENTITY)
    assert found is not None
    assert found.memory.keys() == memory.keys()
    for again in found.memory.values():
        assert again.clients == held.clients
        assert again.server == held.server
        assert list(again.server) == list(again.clients) == sorted(HARD_NAMES)


@pytest.mark.parametrize("form", [1, 2, 3])
def test_sealed_checkpoints_of_earlier_formats_are_refused_as_such(tmp_path: Path, form: int) -> None:
    layout, state = state_of(nn.Linear(2, 2))
    save_checkpoint(tmp_path, layout, state, IDENTITY, 2)
    old = {"format": form, "round": 1, "params_sha256": state.sha256()}
    content = old if form == 1 else seal_json(old)
    (tmp_path / "round-000001" / "state.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"an earlier version wrote it.*start it anew"):
        load_checkpoint(tmp_path, layout, IDENTITY)
