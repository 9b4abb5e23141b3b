"""Tests which blocks are open, always trained, or frozen, by structure and by patterns."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.model_zoo import Recurrent, ResNet, Tied, bert, gpt2, llama, vit
from support.sampling import examples
from torch import nn

from fedtlu_fast import InputError, ParameterLayout
from fedtlu_fast.models.transformer import Transformer, TransformerModel
from fedtlu_fast.selection.standing import Standing, standing


def mlp(*widths):
    return nn.Sequential(*(nn.Linear(*pair) for pair in pairwise(widths)))


def transformer():
    return Transformer.build(TransformerModel(layers=3, width=8, heads=2), 50, 7, 4, 3, causal=False)


def sorted_out(model, *, fine_tuning=False, frozen="auto", always="auto", only=(), granularity="block"):
    layout = ParameterLayout.from_module(model, granularity)
    found = standing(layout, frozen=frozen, always=always, only=only, fine_tuning=fine_tuning)
    parts = (found.open, found.always, found.frozen)
    assert sorted(at for part in parts for at in part) == list(range(len(layout.blocks)))
    assert all(list(part) == sorted(part) for part in parts)
    assert found.mask(len(layout.blocks)).nonzero()[0].tolist() == list(found.open)
    return tuple([layout.blocks[at].name for at in part] for part in parts)


# Model: what lies before the repeated blocks, the blocks, and what lies behind.
STRUCTURES = {
    "transformer": (
        transformer,
        ["tokens", "positions"],
        [f"blocks.{at}" for at in range(3)],
        ["norm", "head"],
    ),
    "gpt2, head tied": (
        gpt2,
        ["transformer.wte", "transformer.wpe"],
        [f"transformer.h.{at}" for at in range(3)],
        ["transformer.ln_f"],
    ),
    "llama": (
        llama,
        ["model.embed_tokens"],
        [f"model.layers.{at}" for at in range(3)],
        ["model.norm", "lm_head"],
    ),
    "bert": (
        bert,
        [
            f"bert.embeddings.{name}"
            for name in ("word_embeddings", "position_embeddings", "token_type_embeddings", "LayerNorm")
        ],
        [f"bert.encoder.layer.{at}" for at in range(3)],
        ["bert.pooler.dense", "classifier"],
    ),
    "vit": (
        vit,
        ["vit.embeddings", "vit.embeddings.patch_embeddings.projection"],
        [f"vit.layers.{at}" for at in range(3)],
        ["vit.layernorm", "classifier"],
    ),
    # Blocks of their own shape among the like ones are open too.
    "resnet": (
        ResNet,
        ["stem"],
        [
            "stage1.0",
            "stage1.1",
            *(f"stage2.0.{name}" for name in ("conv1", "bn1", "conv2", "bn2", "shortcut")),
            "stage2.1",
            "stage2.2",
        ],
        ["head"],
    ),
    "lstm": (Recurrent, ["embedding", "lstm[0]"], ["lstm[1]", "lstm[2]", "lstm[3]"], ["head"]),
    "deep mlp": (lambda: mlp(3, 8, 8, 8, 2), ["0"], ["1", "2"], ["3"]),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_auto_goes_by_structure(name):
    make, stem, middle, head = STRUCTURES[name]
    assert sorted_out(make()) == (stem + middle, head, [])
    assert sorted_out(make(), fine_tuning=True) == (middle, head, stem)


@pytest.mark.parametrize("fine_tuning", [False, True])
def test_without_like_blocks_the_last_one_is_always_trained_and_none_is_frozen(fine_tuning):
    assert sorted_out(mlp(3, 4, 5, 2), fine_tuning=fine_tuning) == (["0", "1"], ["2"], [])
    assert sorted_out(mlp(3, 4), fine_tuning=fine_tuning) == ([], ["0"], [])


def test_where_nothing_lies_behind_the_like_blocks_the_last_of_them_is_always_trained():
    assert sorted_out(Tied(), fine_tuning=True) == (["blocks.0", "blocks.1"], ["blocks.2"], ["embedding"])
    assert sorted_out(mlp(4, 4, 4)) == (["0"], ["1"], [])


def test_names_do_not_matter():
    """The blocks of GPT-2 have names without meaning here."""
    layout = ParameterLayout.from_module(gpt2())
    plain = {
        f"x{layer.name.replace('transformer', '').replace('wte', 'a').replace('ln_f', 'b')}": layer.shape
        for layer in layout.layers
    }
    other = ParameterLayout.from_shapes(plain)
    given = {"frozen": "auto", "always": "auto", "fine_tuning": True}
    assert standing(other, **given) == standing(layout, **given) == Standing((2, 3, 4), (5,), (0, 1))


def test_none_and_patterns():
    blocks = [f"blocks.{at}" for at in range(3)]
    ends = ["tokens", "positions"], ["norm", "head"]
    every = [*ends[0], *blocks, *ends[1]]
    assert sorted_out(transformer(), frozen="none", always="none") == (every, [], [])
    assert sorted_out(transformer(), fine_tuning=True, frozen="none") == (ends[0] + blocks, ends[1], [])
    assert sorted_out(transformer(), frozen="tokens", always="blocks.0") == (
        ["positions", *blocks[1:], *ends[1]],
        ["blocks.0"],
        ["tokens"],
    )
    assert sorted_out(transformer(), frozen=("*s", "blocks.[01]"), always=("head",)) == (
        ["blocks.2", "norm"],
        ["head"],
        [*ends[0], *blocks[:2]],
    )
    assert sorted_out(transformer(), frozen=(), always=()) == (every, [], [])


def test_a_blocks_own_name_is_a_pattern_of_it_brackets_and_all():
    found = sorted_out(Recurrent(), frozen="lstm[1]", always=("lstm[3]", "head"))
    assert found == (["embedding", "lstm[0]", "lstm[2]"], ["lstm[3]", "head"], ["lstm[1]"])


def test_only_what_may_be_trained_at_all():
    """The patterns are FedPer's base, all blocks except the norms, and the head alone."""
    blocks = [f"blocks.{at}" for at in range(3)]
    found = sorted_out(transformer(), only=("tokens", "blocks.*"))
    assert found == (["tokens", *blocks], [], ["positions", "norm", "head"])
    assert sorted_out(transformer(), only=("head",))[:2] == ([], ["head"])
    assert sorted_out(transformer(), only=("*",)) == sorted_out(transformer())
    assert sorted_out(transformer(), only=("blocks.*",), fine_tuning=True)[0] == blocks
    assert sorted_out(transformer(), only=("head",), always="none")[:2] == (["head"], [])


def test_what_is_frozen_by_name_is_not_always_trained():
    assert sorted_out(transformer(), frozen="head")[1:] == (["norm"], ["head"])


def test_modules_and_tensors_can_be_blocks():
    open_, always, frozen = sorted_out(gpt2(layers=2), granularity="tensor", fine_tuning=True)
    assert frozen == ["transformer.wte.weight", "transformer.wpe.weight"]
    assert always == ["transformer.ln_f.weight", "transformer.ln_f.bias"]
    assert all(name.startswith("transformer.h.") for name in open_)


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"frozen": "embedding*"}, "frozen", "embedding*"),
        ({"always": ("head", "Head")}, "always", "Head"),
        ({"only": ("lora*",)}, "only", "lora*"),
        ({"frozen": "blocks.*", "always": "blocks.1"}, "always", "blocks.1"),
        ({"only": ("head",), "always": "norm"}, "always", "norm"),
        ({"frozen": "*"}, "frozen", "*"),
        ({"frozen": "*", "always": "none"}, "frozen", "*"),
    ],
)
def test_what_cannot_be_is_refused_with_the_field(given, field, value):
    with pytest.raises(InputError) as caught:
        sorted_out(transformer(), **given)
    assert (caught.value.field, caught.value.value) == (f"client_selection.{field}", value)
    if value not in ("*", "blocks.1", "norm"):
        assert "blocks.0" in str(caught.value), "it tells the names there are"


@examples(60)
@given(
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=9),
    fine_tuning=st.booleans(),
    frozen=st.sampled_from(["auto", "none"]),
    always=st.sampled_from(["auto", "none"]),
)
def test_some_block_can_be_trained_in_any_model(sizes, fine_tuning, frozen, always):
    layout = ParameterLayout.from_shapes({f"{at}.weight": (size,) for at, size in enumerate(sizes)})
    found = standing(layout, frozen=frozen, always=always, fine_tuning=fine_tuning)
    assert sorted(found.open + found.always + found.frozen) == list(range(len(sizes)))
    assert found.open + found.always
    assert torch.equal(layout.layer_mask(found.open), torch.from_numpy(found.mask(len(sizes))))


# --- what clients keep ---------------------------------------------------------------------------


def with_personal(personal, *, fine_tuning=False, frozen="auto", always="auto", only=()):
    layout = ParameterLayout.from_module(transformer())
    found = standing(
        layout, frozen=frozen, always=always, only=only, personal=personal, fine_tuning=fine_tuning
    )
    parts = (found.open, found.always, found.frozen, found.personal)
    assert sorted(at for part in parts for at in part) == list(range(len(layout.blocks)))
    return tuple([layout.blocks[at].name for at in part] for part in parts)


def test_what_is_personal_is_nothing_else():
    stem, blocks, head = (names for names in STRUCTURES["transformer"][1:])
    assert with_personal("none") == with_personal(()) == (stem + blocks, head, [], [])
    assert with_personal("auto") == (stem + blocks, [], [], head)
    assert with_personal("head") == (stem + blocks, ["norm"], [], ["head"])
    assert with_personal(("tokens", "head"), fine_tuning=True) == (
        blocks,
        ["norm"],
        ["positions"],
        ["tokens", "head"],
    )
    assert with_personal("head", only=("blocks.*", "head")) == (blocks, [], [*stem, "norm"], ["head"])


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ({"personal": "Head"}, "Head"),
        ({"personal": "head", "always": "head"}, "head"),
        ({"personal": "auto", "always": "norm"}, "norm"),
        ({"personal": "tokens", "frozen": "tokens"}, "tokens"),
        ({"personal": "head", "only": ("blocks.*",)}, "head"),
        ({"personal": "*"}, "*"),
    ],
    ids=str,
)
def test_personal_blocks_that_cannot_be_are_refused(given, value):
    with pytest.raises(InputError) as caught:
        with_personal(**given)
    assert (caught.value.field, caught.value.value) == ("client_selection.personal", value)
