"""Tests that adapters are scored as products, and that the result is that of the joined models."""

import json
from math import sqrt
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.model_zoo import gpt2

from fedtlu_fast import InputError, layer_stats, score

R = 2
SHAPES = {"q": (6, 4), "v": (3, 4)}


def draw(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def adapter(path: Path, seed: int, names=("q", "v"), kind="safetensors", extra=None, **config) -> Path:
    """Writes an adapter of a model with the layers h.0 and h.1."""
    path.mkdir()
    tensors = dict(extra or {})
    for block in range(2):
        for at, name in enumerate(names):
            out, width = SHAPES[name]
            own = f"base_model.model.h.{block}.{name}"
            tensors[f"{own}.lora_A.weight"] = draw(seed + 10 * block + at, R, width)
            tensors[f"{own}.lora_B.weight"] = draw(seed + 100 + 10 * block + at, out, R)
    if kind == "bin":
        torch.save(tensors, path / "adapter_model.bin")
    else:
        save_file(tensors, path / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": R, "lora_alpha": 8, "base_model_name_or_path": "tiny"}
    (path / "adapter_config.json").write_text(json.dumps(settings | config))
    return path


def products(path: Path, scale: float = 4.0) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    held = load_file(path / "adapter_model.safetensors")
    return {
        name.removeprefix("base_model.model.").replace("lora_A.", ""): scale
        * held[name.replace("lora_A", "lora_B")].double()
        @ tensor.double()
        for name, tensor in held.items()
        if ".lora_A." in name
    }


def base(path: Path, dtype=torch.float32) -> Path:
    tensors = {
        f"h.{block}.{name}.weight": draw(7 + block, *shape).to(dtype)
        for block in range(2)
        for name, shape in SHAPES.items()
    }
    save_file(tensors | {"embed.weight": draw(3, 9, 4).to(dtype)}, path)
    return path


def assert_like(found, delta):
    expected = layer_stats({name: delta[name] for name in found.scores.names}, backend="reference")
    for field in ("count", "mean", "std", "l2", "abs_max"):
        torch.testing.assert_close(
            getattr(found.stats, field), getattr(expected, field), rtol=1e-10, atol=1e-12, msg=field
        )
    assert set(found.scores.names) == set(delta)


def test_two_adapters_differ_by_their_products(tmp_path):
    one, two = adapter(tmp_path / "one", 1), adapter(tmp_path / "two", 2, lora_alpha=2)
    found = score(one, two)
    before, after = products(one), products(two, 1.0)
    assert_like(found, {name: after[name] - before[name] for name in before})
    assert [group.name for group in found.layout.groups] == ["h.*"]
    assert found.weights is None
    assert any("without base weights" in note for note in found.notes)
    with pytest.raises(InputError, match=r"metric: got 'relative_change'.*Give the base model"):
        found.rows(metric="relative_change")


def test_a_weight_that_only_one_adapter_changes_counts_whole(tmp_path):
    one, two = adapter(tmp_path / "one", 1, names=("q",)), adapter(tmp_path / "two", 2)
    before, after = products(one), products(two)
    delta = {name: after[name] - before.get(name, 0) for name in after}
    assert_like(score(one, two), delta)
    assert_like(score(two, one, strict=True), {name: -own for name, own in delta.items()})


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({"use_rslora": True}, 8 / sqrt(R)),
        ({"alpha_pattern": {"h.1.q": 6, r"\d.v": 10}}, None),
    ],
)
def test_scales_are_those_of_peft(tmp_path, config, scale):
    one = adapter(tmp_path / "one", 1, **config)
    delta = products(one, 1.0)
    scales = dict.fromkeys(delta, scale or 4.0)
    if scale is None:
        scales |= {"h.1.q.weight": 3.0, "h.0.v.weight": 5.0, "h.1.v.weight": 5.0}
    found = score(base(tmp_path / "base.safetensors"), one)
    assert_like(found, {name: scales[name] * own for name, own in delta.items()})


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_an_adapter_and_its_base_differ_by_the_products(tmp_path, kind):
    whole = base(tmp_path / "base.safetensors", torch.bfloat16)
    one = adapter(tmp_path / "one", 1)
    given = one if kind == "safetensors" else adapter(tmp_path / "pickled", 1, kind="bin")
    delta = products(one)
    found = score(whole, given)
    assert_like(found, delta)
    assert found.left_out == ()
    assert found.weights is None, "the base is not read"
    assert_like(score(given, whole), {name: -own for name, own in delta.items()})
    assert score(whole, given / f"adapter_model.{kind}").stats.l2.equal(found.stats.l2)
    assert (kind == "bin") == any("a pickle" in note for note in found.notes)
    ranked = score(whole, given, metric="relative_change").rows("layer")
    stored = {name: draw(7 + int(name[2]), *SHAPES[name[4]]).bfloat16().double() for name in delta}
    for row in ranked:
        expected = float(delta[row["name"]].norm() / stored[row["name"]].norm())
        assert row["value"] == pytest.approx(expected, rel=1e-10)
        assert row["relative_change"] == pytest.approx(expected, rel=1e-10)


def test_with_the_base_an_adapter_is_a_whole_model(tmp_path):
    whole, tuned = base(tmp_path / "base.safetensors"), tmp_path / "tuned.safetensors"
    one, two = adapter(tmp_path / "one", 1), adapter(tmp_path / "two", 2)
    weights = {
        f"h.{b}.{name}.weight": draw(7 + b, *shape) for b in range(2) for name, shape in SHAPES.items()
    }
    weights["embed.weight"] = draw(3, 9, 4)
    save_file({name: own + 1 + 0.1 * own.square() for name, own in weights.items()}, tuned)
    delta = {name: own.new_zeros(own.shape, dtype=torch.float64) for name, own in weights.items()}
    changes = {name: delta[name] + products(two)[name] - products(one)[name] for name in products(one)}
    found = score(one, two, base=whole)
    assert_like(found, delta | changes)
    full = score(one, tuned, base=whole)
    after = {name: (own + 1 + 0.1 * own.square()).double() for name, own in weights.items()}
    before = {name: own.double() + products(one).get(name, 0) for name, own in weights.items()}
    assert_like(full, {name: after[name] - before[name] for name in after})
    assert full.weights.l2[0] == pytest.approx(float(before[full.scores.names[0]].norm()), rel=1e-12)
    with pytest.raises(InputError, match=r"BASE: got .*neither BEFORE nor AFTER is an adapter"):
        score(whole, tuned, base=whole)
    with pytest.raises(InputError, match=r"BASE: got .*a whole model, but this is an adapter"):
        score(one, tuned, base=two)


def test_whole_tensors_of_an_adapter_and_unknown_ones(tmp_path):
    head = {"base_model.model.embed.weight": draw(4, 9, 4), "base_model.model.new.weight": draw(5, 2, 2)}
    one = adapter(tmp_path / "one", 1, extra=head)
    whole = base(tmp_path / "base.safetensors")
    found = score(whole, one)
    embed = head["base_model.model.embed.weight"].double() - draw(3, 9, 4).double()
    assert_like(found, products(one) | {"embed.weight": embed})
    assert found.left_out == ("new.weight: in AFTER, but not in its base model",)
    with pytest.raises(InputError, match=r"BEFORE: got 'no tensor new\.weight'"):
        score(whole, one, strict=True)
    two = adapter(tmp_path / "two", 2)
    lone = score(one, two)
    assert lone.left_out == ("embed.weight: not in AFTER", "new.weight: not in AFTER")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "got 'an adapter of type IA3'; expected an adapter of type LORA"),
        ({"use_dora": True}, "got 'an adapter with use_dora'; expected plain LoRA.*merge_and_unload"),
        ({"alpha_pattern": {"(": 1}}, ".*the configuration of an adapter"),
        ({"lora_alpha": "many"}, ".*the configuration of an adapter"),
        ({"lora_alpha": float("nan")}, ".*the configuration of an adapter.*lora_alpha is nan"),
        ({"alpha_pattern": {"q": float("inf")}}, ".*the configuration of an adapter.*lora_alpha is inf"),
    ],
)
def test_other_adapters_are_refused(tmp_path, config, message):
    one, two = adapter(tmp_path / "one", 1), adapter(tmp_path / "two", 2, **config)
    with pytest.raises(InputError, match=f"AFTER: {message}"):
        score(one, two)


def test_products_of_another_shape_are_never_scored_as_no_change(tmp_path):
    one = adapter(tmp_path / "one", 1)
    other = {name: draw(1, 5, 5) for name in products(one)}
    save_file(other, tmp_path / "none.safetensors")
    with pytest.raises(
        InputError, match=r"AFTER: got .*an adapter of .*none.*; h\.0\.q\.weight: shape \(6, 4\)"
    ):
        score(tmp_path / "none.safetensors", one)
    save_file(other | {"h.1.v.weight": draw(8, 3, 4)}, tmp_path / "some.safetensors")
    found = score(tmp_path / "some.safetensors", one)
    assert found.scores.names == ("h.1.v.weight",)
    assert len(found.left_out) == 3


def test_an_adapter_without_its_configuration_is_one_message(tmp_path):
    one, two = adapter(tmp_path / "one", 1), adapter(tmp_path / "two", 2)
    (two / "adapter_config.json").unlink()
    for path in (two, two / "adapter_model.safetensors"):
        with pytest.raises(
            InputError, match=r"AFTER: got .*adapter_config\.json.*; expected the configuration of"
        ):
            score(one, path)


def test_damaged_adapters_are_one_message(tmp_path):
    one = adapter(tmp_path / "one", 1)
    path = tmp_path / "two"
    path.mkdir()
    (path / "adapter_config.json").write_text("{}")
    for tensors, message in (
        ({"base_model.model.q.lora_A.weight": draw(1, 2, 3)}, "AFTER: q: got 'no lora_B'"),
        (
            {"q.lora_A.weight": draw(1, 2, 3), "q.lora_B.weight": draw(1, 3, 4)},
            r"AFTER: q: got .*\(2, 3\) and lora_B F32 \(3, 4\)",
        ),
        ({"q.weight": draw(1, 2, 3)}, "AFTER: got .*holds no matrices lora_A and lora_B"),
    ):
        save_file(tensors, path / "adapter_model.safetensors")
        with pytest.raises(InputError, match=message):
            score(one, path)


def test_notes_tell_what_products_hold(tmp_path):
    one = adapter(tmp_path / "one", 1, init_lora_weights="pissa")
    two = adapter(tmp_path / "two", 2, base_model_name_or_path="other")
    notes = score(one, two).notes
    assert any("BEFORE: init_lora_weights=pissa" in note for note in notes)
    assert any("other names" in note and "tiny" in note for note in notes)


@pytest.mark.slow
def test_products_are_what_peft_adds(tmp_path):
    peft = pytest.importorskip("peft")
    model = gpt2()
    before = {name: own.detach().clone() for name, own in model.state_dict().items()}
    config = peft.LoraConfig(
        r=3,
        lora_alpha=5,
        use_rslora=True,
        fan_in_fan_out=True,
        target_modules=["c_attn", "c_fc", "wte"],
        rank_pattern={"1.mlp.c_fc": 2},
        alpha_pattern={"h.2.attn.c_attn": 9},
        modules_to_save=["ln_f"],
    )
    tuned = peft.get_peft_model(model, config)
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn(parameter.shape, generator=draws))
    tuned.save_pretrained(tmp_path / "adapter")
    merged = tuned.merge_and_unload().state_dict()
    found = score(
        {name: own for name, own in before.items() if name != "lm_head.weight"}, tmp_path / "adapter"
    )
    changed = {
        name for name in before if not torch.equal(before[name], merged[name]) and name != "lm_head.weight"
    }
    assert set(found.scores.names) - {"transformer.ln_f.weight", "transformer.ln_f.bias"} == {
        name for name in changed if "ln_f" not in name
    }
    for name, l2 in zip(found.scores.names, found.stats.l2.tolist(), strict=True):
        assert l2 == pytest.approx(float((merged[name].double() - before[name].double()).norm()), rel=1e-5)
    assert found.left_out == ()
