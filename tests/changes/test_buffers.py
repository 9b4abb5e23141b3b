from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from fedtlu_fast.changes import score

Tensors = dict[str, Tensor]


def scored(path: Path, tensors: Tensors) -> tuple[set[str], set[str]]:
    """Returns the names of layers and buffers of a change of everything except masks and positions."""
    fixed = ("bias", "mask", "tril", "pe")
    later = {
        name: t + torch.rand(t.shape) if t.is_floating_point() and name.split(".")[-1] not in fixed else t
        for name, t in tensors.items()
    }
    save_file({name: t.contiguous() for name, t in tensors.items()}, path / "a.safetensors")
    save_file({name: t.contiguous() for name, t in later.items()}, path / "b.safetensors")
    found = score(path / "a.safetensors", path / "b.safetensors")
    return set(found.scores.names), set(found.buffers)


def odd_module() -> nn.Module:
    found = nn.Sequential(
        nn.Conv2d(2, 2, 3),
        nn.BatchNorm2d(2),
        spectral_norm(nn.Linear(3, 3)),
        parametrizations.spectral_norm(nn.Linear(3, 3)),
        weight_norm(nn.Linear(3, 3)),
        nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
        nn.Linear(3, 3),
    )
    prune.random_unstructured(found[6], "weight", 0.5)
    return found


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_layers_are_the_parameters_of_a_module_and_nothing_else(tmp_path: Path) -> None:
    model = odd_module()
    tensors = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    layers, found = scored(tmp_path, tensors)
    assert layers == {name for name, _ in model.named_parameters()}
    assert found == {name for name, b in model.named_buffers() if b.is_floating_point()}


def causal(size: int, *lead: int) -> Tensor:
    return torch.tril(torch.ones(size, size)).expand(*lead, size, size)


def test_masks_and_positions_are_known_by_their_numbers(tmp_path: Path) -> None:
    at = torch.arange(9.0)[:, None] * torch.tensor([1.0, 0.01])
    fixed = {
        "h.0.attn.bias": causal(300, 1, 1),
        "h.1.attn.bias": causal(8, 1, 1).triu(-2),  # a local window, as in GPT-Neo
        "head.tril": causal(5),
        "pos.pe": torch.stack([at.sin(), at.cos()], dim=-1).reshape(9, 1, 4),
        "attn.masked_bias": torch.tensor(-1e4),
        "embeddings.position_ids": torch.arange(4.0)[None],
        "rotary_emb.inv_freq": torch.rand(4),
        "layers.0.attn.relative_position_index": torch.rand(4, 4),
        "vq.cluster_size": torch.rand(4),
        "vq.embed_avg": torch.rand(4, 2),
        "model_ema.h0w": torch.rand(3),
    }
    trained = {
        "h.0.bias": torch.ones(4),
        "h.1.bias": torch.zeros(1, 1, 4, 4),
        "h.2.bias": causal(4, 3),
        "h.3.bias": causal(4, 1, 1) * 0.5,
        "h.4.bias": torch.ones(4, 4),
        "h.5.bias": torch.ones(1, 1),
        "h.0.w": torch.rand(3, 3),
        "vit.pe": torch.rand(1, 9, 4),
        "mixer.embed_avg": torch.rand(3),
        "mixer.weight_v": torch.rand(3),
        "mixer.mask": torch.rand(3, 3),
    }
    assert scored(tmp_path, {**fixed, **trained}) == (trained.keys(), fixed.keys())


def test_quantised_weights_are_left_out_with_their_scales(tmp_path: Path) -> None:
    eight = torch.rand(4, 4).to(torch.float8_e4m3fn)
    content: Tensors = {
        "a.weight": eight,
        "a.weight_scale_inv": torch.rand(1),
        "b.qweight": torch.ones(4, 4, dtype=torch.int32),
        "b.scales": torch.rand(4),
        "c.weight": torch.ones(4, 4, dtype=torch.uint8),
        "c.weight.absmax": torch.rand(4),
        "d.scales": torch.rand(4),
        "e.weight": eight.clone(),
        "f.weight_scale": torch.rand(4),
    }
    for name in ("a", "b"):
        save_file(content, tmp_path / f"{name}.safetensors")
    found = score(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert set(found.scores.names) == {"d.scales", "e.weight", "f.weight_scale"}
    assert set(found.skipped) == content.keys() - set(found.scores.names)
