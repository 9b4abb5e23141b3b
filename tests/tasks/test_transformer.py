"""Our Transformer: the tokens that each token sees, its blocks, and its initial weights."""

import pytest
import torch
from torch.nn import functional as F

from fedtlu_fast import ParameterLayout
from fedtlu_fast.models.transformer import Transformer, TransformerModel

SIZE = TransformerModel(layers=3, width=16, heads=2)
POSITIONS = 9


def build(causal=False, seed=4, size=SIZE):
    return Transformer.build(size, 30, POSITIONS, 5, seed, causal=causal)


@pytest.fixture
def tokens(generator):
    return torch.randint(1, 30, (4, POSITIONS), generator=generator)


def test_a_causal_model_sees_only_earlier_tokens(tokens):
    for causal in (True, False):
        model = build(causal)
        changed = tokens.clone()
        changed[:, 5] = tokens[:, 5] % 29 + 1
        moved = (model(tokens) - model(changed)).abs().amax(dim=(0, 2))
        assert moved[5:].min() > 0
        assert (moved[:5].max() == 0) == causal


def test_no_token_sees_padding(tokens):
    model, real = build(), torch.ones(4, POSITIONS, dtype=torch.bool)
    real[1, 6:] = real[2, 1:] = False
    base = model(tokens, real)
    changed = torch.where(real, tokens, tokens % 29 + 1)
    assert not torch.equal(changed, tokens)
    assert torch.equal(model(changed, real)[real], base[real])
    alone = model(tokens[1:2, :6])
    torch.testing.assert_close(base[1:2, :6], alone, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model(tokens, torch.ones_like(real)), model(tokens), rtol=1e-5, atol=1e-6)


def test_a_sample_of_padding_alone_has_finite_logits(tokens):
    model = build()
    logits = model(tokens, torch.zeros(4, POSITIONS, dtype=torch.bool))
    logits.sum().backward()
    assert logits.isfinite().all()
    assert all(param.grad.isfinite().all() for param in model.parameters())


def test_a_block_equals_its_formula(tokens):
    """Computes one block by hand, in float64."""
    model = build(size=TransformerModel(layers=1, width=8, heads=2)).double()
    x = model.tokens(tokens) + model.positions(torch.arange(POSITIONS))
    block = model.blocks[0]
    q, k, v = block.split(F.layer_norm(x, (8,), block.attention_norm.weight)).split(8, dim=-1)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(q[..., head] @ k[..., head].transpose(1, 2) / 2.0, dim=-1)
        heads.append(weights @ v[..., head])
    x = x + block.merge(torch.cat(heads, dim=-1))
    x = x + block.shrink(F.gelu(block.expand(F.layer_norm(x, (8,))), approximate="tanh"))
    torch.testing.assert_close(model(tokens), model.head(F.layer_norm(x, (8,))))


def test_its_blocks_are_alike_and_nothing_is_tied():
    model = build()
    layout = ParameterLayout.from_module(model)
    (group,) = layout.groups
    assert [layout.blocks[block].name for block in group.blocks] == ["blocks.0", "blocks.1", "blocks.2"]
    assert layout.size == sum(param.numel() for param in model.parameters())
    assert len({param.data_ptr() for param in model.parameters()}) == len(list(model.parameters()))


def test_weights_depend_on_the_seed_only_and_have_gpt2s_spread():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = build().state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert all(torch.equal(value, first[name]) for name, value in build().state_dict().items())
    assert not torch.equal(build(seed=5).head.weight, first["head.weight"])
    wide = build(size=TransformerModel(layers=8, width=128, heads=2))
    assert wide.tokens.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert wide.blocks[3].expand.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert wide.blocks[3].merge.weight.std().item() == pytest.approx(0.02 / 4, rel=0.05)
    assert all(param.eq(0).all() for name, param in wide.named_parameters() if name.endswith("bias"))
    assert all(param.eq(1).all() for name, param in wide.named_parameters() if name.endswith("norm.weight"))
