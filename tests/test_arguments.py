"""Tests that every public function refuses arguments of a wrong type with a message that names them."""

import pytest
import torch
from torch import nn

from fedtlu_fast import (
    InputError,
    ParameterLayout,
    aggregate,
    layer_stats,
    load_config,
    score_blocks,
    score_layers,
    simulate,
)

LAYOUT = ParameterLayout.from_module(nn.Linear(2, 1))
STATS = layer_stats(torch.tensor([1.0, 2.0, 4.0]), LAYOUT)
SHORT = layer_stats([torch.ones(3)])
SHAPES = ParameterLayout.from_shapes
WRONG = {
    "stats": [lambda: score_layers(None), lambda: score_layers(torch.ones(3)),
              lambda: score_blocks(score_layers(STATS), LAYOUT, SHORT)],
    "scores": [lambda: score_blocks(None, LAYOUT, STATS),
               lambda: score_blocks(score_layers(SHORT), LAYOUT, STATS)],
    "ddof": [lambda: score_layers(STATS, True)],
    "model": [lambda: ParameterLayout.from_module(3), lambda: ParameterLayout.from_module(nn.Linear)],
    "shapes": [lambda: SHAPES(None), lambda: SHAPES(["a"]), lambda: SHAPES({"a": 3}),
               lambda: SHAPES({"a": (-1,)}), lambda: SHAPES({3: (1,)}),
               lambda: SHAPES({"a": (1.5,)}), lambda: SHAPES({"a": "12"})],
    "layout": [lambda: layer_stats(torch.ones(3), layout="x"), lambda: aggregate([torch.ones(3)], [1], None),
               lambda: score_blocks(score_layers(STATS), None, STATS)],
    "delta": [lambda: layer_stats(None), lambda: layer_stats(3), lambda: layer_stats("ab")],
    "config": [lambda: simulate([]), lambda: simulate(3), lambda: simulate("nope")],
    "out": [lambda: simulate({}, out=3)],
    "callbacks": [lambda: simulate({}, callbacks=print), lambda: simulate({}, callbacks=3)],
    "preset": [lambda: load_config(3)],
}  # fmt: skip


@pytest.mark.parametrize(
    ("field", "call"), [(field, call) for field, calls in WRONG.items() for call in calls]
)
def test_the_argument_is_named(field, call):
    with pytest.raises(InputError) as raised:
        call()
    assert raised.value.field.startswith(field)
