"""The convolutional network: its blocks, its sizes, its initial weights."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples
from torch import nn

from fedtlu_fast import ParameterLayout
from fedtlu_fast.models.cnn import SMALLEST, Cnn, CnnModel, halvings


def build(shape=(3, 8, 8), outputs=5, seed=0, **over):
    size = CnnModel(**{"layers": 4, "width": 8, **over})
    return Cnn.build(size, shape, outputs, seed)


@pytest.mark.parametrize("layers", [2, 6])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 32, 32)])
def test_its_blocks_are_alike_and_lie_between_stem_and_head(shape, layers):
    layout = ParameterLayout.from_module(build(shape, layers=layers))
    names = [block.name for block in layout.blocks]
    assert names == ["stem", *(f"blocks.{index}" for index in range(layers)), "head"]
    assert [group.blocks for group in layout.groups] == [tuple(range(1, layers + 1))]
    assert [names[index] for index in layout.unique] == ["stem", "head"]


@examples(60)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 3), st.integers(1, 7))
def test_images_of_any_size_are_read(height, width, channels, layers):
    model = build((channels, height, width), layers=layers, width=2)
    assert model(torch.zeros(2, channels, height, width)).shape == (2, 5)


@given(st.integers(1, 300), st.integers(1, 12))
def test_images_are_halved_down_to_the_smallest_side_and_once_a_block(side, blocks):
    found = halvings(side, blocks)
    assert sorted(set(found)) == list(found)
    assert all(0 <= place < blocks for place in found)
    left = side >> len(found)
    assert left >= SMALLEST or not found
    assert left < 2 * SMALLEST or len(found) == blocks


def test_a_digit_is_halved_once_and_a_cifar_image_three_times():
    assert halvings(8, 6) == (0,)
    assert halvings(32, 6) == (0, 2, 4)
    assert halvings(3, 6) == ()


def test_a_block_adds_to_what_comes_in(generator):
    model = build()
    for block in model.blocks:
        nn.init.zeros_(block.conv.weight)
        nn.init.zeros_(block.conv.bias)
    images = torch.randn(2, 3, 8, 8, generator=generator)
    expected = model.head(torch.relu(nn.functional.max_pool2d(model.stem(images), 2)).flatten(1))
    torch.testing.assert_close(model(images), expected)


@pytest.mark.parametrize(("norm", "kind"), [("group", nn.GroupNorm), ("batch", nn.BatchNorm2d)])
def test_its_normalisation_is_that_of_the_settings(norm, kind):
    model = build(norm=norm, width=12)
    assert sum(isinstance(module, kind) for module in model.modules()) == 4
    assert bool(ParameterLayout.from_module(model).buffers) == (norm == "batch")
    none = build(norm="none")
    assert not any(isinstance(module, nn.GroupNorm | nn.BatchNorm2d) for module in none.modules())


def test_initial_weights_depend_on_the_seed_alone():
    def weights(seed):
        return torch.cat([param.detach().reshape(-1) for param in build(seed=seed).parameters()])

    before = torch.get_rng_state()
    first = weights(3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(1)
    assert torch.equal(weights(3), first)
    assert not torch.equal(weights(4), first)
