"""Tests that layers are sorted into kinds by their places and shapes, whatever a library calls them."""

import pytest
import torch
from support import model_zoo
from torch import nn

import fedtlu_fast as ft
from fedtlu_fast.changes.kinds import kinds
from fedtlu_fast.layout import ParameterLayout


def roles(shapes):
    found = kinds(ParameterLayout.from_shapes(shapes))
    assert sorted(layer for kind in found for layer in kind.layers) == list(range(len(shapes)))
    return {kind.name: (kind.role, len(kind.layers)) for kind in found}


def of_module(model):
    return roles({name: tuple(own.shape) for name, own in model.named_parameters()})


def llama(names, blocks=3, width=8, wide=20, narrow=2, vocabulary=50):
    q, k, o, up, down, norm, embed, head = names
    shapes = {embed: (vocabulary, width)}
    for block in range(blocks):
        for name, shape in (
            (q, (width, width)), (k, (narrow, width)), (o, (width, width)),
            (up, (wide, width)), (down, (width, wide)), (norm, (width,)),
        ):  # fmt: skip
            shapes[name.format(block)] = shape
    return shapes | {head: (vocabulary, width)}


@pytest.mark.parametrize(
    "names",
    [
        ("m.{}.a.q", "m.{}.a.k", "m.{}.a.o", "m.{}.f.up", "m.{}.f.down", "m.{}.n.w", "e.w", "h.w"),
        # GGUF: every tensor is a module of its own
        ("b.{}.x1.w", "b.{}.x2.w", "b.{}.x3.w", "b.{}.x4.w", "b.{}.x5.w", "b.{}.x6.w", "t.w", "out.w"),
    ],
)
def test_roles_do_not_depend_on_names(names):
    found = roles(llama(names))
    q, k, o, up, down, norm = (name.replace("{}", "*") for name in names[:6])
    assert {found[name] for name in (q, k, o)} == {("attention", 3)}
    assert {found[name] for name in (up, down)} == {("mlp", 3)}
    assert found[norm] == ("norm", 3)
    assert found[names[6]] == found[names[7]] == ("embedding or head", 1)


def test_kinds_of_models_of_transformers():
    found = of_module(model_zoo.gpt2(layers=3))
    assert found["transformer.h.*.attn.c_attn.weight"] == ("attention", 3)
    assert found["transformer.h.*.attn.c_attn.bias"] == ("bias", 3)
    assert found["transformer.h.*.mlp.c_proj.weight"] == ("mlp", 3)
    assert found["transformer.h.*.ln_1.bias"] == ("norm", 3)
    assert found["transformer.wte.weight"] == ("embedding or head", 1)
    assert found["transformer.ln_f.weight"] == ("norm", 1)
    torch_own = of_module(nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 32), 3))
    assert torch_own["layers.*.self_attn.in_proj_weight"] == ("attention", 3)
    assert torch_own["layers.*.self_attn.in_proj_bias"] == ("bias", 3)
    assert torch_own["layers.*.linear2.weight"] == ("mlp", 3)


def test_models_without_attention_have_plain_roles():
    found = of_module(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2)))
    assert {name: role for name, (role, _) in found.items()} == {
        "0.weight": "kernel",
        "*.*": "bias, norm",  # of one shape, in a model where nothing repeats
        "3.weight": "matrix",
        "3.bias": "bias",
    }
    router = {
        f"m.{block}.{name}": shape
        for block in range(2)
        for name, shape in (("a.q", (8, 8)), ("a.o", (8, 8)), ("f.gate", (4, 8)))
    } | {
        f"m.{block}.f.{name}": shape for block in range(2) for name, shape in (("u", (20, 8)), ("d", (8, 20)))
    }
    assert roles(router)["m.*.f.gate"] == ("mlp", 2), "a router is in the part of the block with its MLP"


def test_rows_by_kind_add_up_and_name_the_best_layer():
    shapes = llama(("m.{}.a.q", "m.{}.a.k", "m.{}.a.o", "m.{}.f.up", "m.{}.f.down", "m.{}.n.w", "e.w", "h.w"))
    draws = torch.Generator().manual_seed(2)
    before = {name: torch.randn(shape, generator=draws) for name, shape in shapes.items()}
    after = {name: own + torch.randn(own.shape, generator=draws) * 0.1 for name, own in before.items()}
    scored = ft.score(before, after)
    rows = {row["name"]: row for row in scored.rows("kind")}
    assert sum(row["share"] for row in rows.values()) == pytest.approx(1)
    assert sum(row["parameters"] for row in rows.values()) == scored.layout.size
    values = [row["value"] for row in scored.rows("kind")]
    assert values == sorted(values, reverse=True)
    own = rows["m.*.a.q"]
    names = [f"m.{block}.a.q" for block in range(3)]
    norm = torch.stack([(after[name].double() - before[name].double()).norm() for name in names]).norm()
    weight = torch.stack([before[name].double().norm() for name in names]).norm()
    assert own["l2"] == pytest.approx(float(norm), rel=1e-12)
    assert own["relative_change"] == pytest.approx(float(norm / weight), rel=1e-12)
    excess = dict(zip(scored.scores.names, scored.scores.excess.tolist(), strict=True))
    assert own["best"] == max(names, key=excess.get)
    margins = scored.scores.margin[[scored.scores.names.index(name) for name in names]]
    assert own["value"] == pytest.approx(float(margins.mean()), rel=1e-12)


@pytest.mark.parametrize("by", ["layer", "block", "kind"])
def test_every_ranking_can_be_drawn(by):
    pytest.importorskip("matplotlib")
    model = model_zoo.gpt2(layers=3)
    after = {name: own.detach() * 1.01 + 0.01 for name, own in model.named_parameters()}
    figure = ft.score(dict(model.named_parameters()), after).figure(by)
    (axes, *_) = figure.axes
    shown = [label.get_text() for label in axes.get_yticklabels()]
    expected = {
        "layer": "transformer.h.*.ln_1.weight (norm)",
        "block": "transformer.h.0",
        "kind": "transformer.h.*.ln_1.weight",
    }
    assert expected[by] in shown
    flat = ft.score({"w": torch.zeros(3)}, {"w": torch.zeros(3)}).figure(by)
    assert flat.axes
