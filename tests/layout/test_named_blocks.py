"""Blocks that the user names: their layers and their groups."""

import pytest
import torch
from torch import nn

from fedtlu_fast import InputError, ParameterLayout

SHAPES = {
    "stem.weight": (3, 3),
    "down.0.conv.weight": (4, 2),
    "down.0.norm.weight": (4,),
    "down.1.conv.weight": (8, 4),
    "down.1.norm.weight": (8,),
    "middle.weight": (8, 8),
    "up.left.conv.weight": (8, 2),
    "up.right.conv.weight": (4, 2),
    "h.0.weight": (2, 2),
    "h.1.weight": (2, 2),
    "scale": (5,),
}


def layout_of(*patterns, granularity="block"):
    return ParameterLayout.from_shapes(SHAPES, granularity, blocks=patterns)


def groups(layout):
    return {group.name: [layout.blocks[at].name for at in group.blocks] for group in layout.groups}


def test_every_pattern_is_a_group_of_blocks_whatever_their_shapes():
    layout = layout_of("down.*", "up.*")
    assert groups(layout) == {
        "down.*": ["down.0", "down.1"],
        "up.*": ["up.left", "up.right"],
        "h.*": ["h.0", "h.1"],
    }
    held = [layer for block in layout.blocks for layer in block.layers]
    assert sorted(held) == list(range(len(SHAPES)))
    assert [layout.layers[at].name for at in layout.blocks[1].layers] == [*SHAPES][1:3]
    assert layout.offsets.tolist() == layout_of().offsets.tolist()


def test_without_patterns_nothing_changes():
    assert layout_of() == ParameterLayout.from_shapes(SHAPES)
    assert groups(layout_of()) == {"h.*": ["h.0", "h.1"]}


def test_a_star_stands_within_one_part_of_a_name():
    assert "up.*.conv" in groups(layout_of("up.*.conv"))
    assert groups(layout_of("*.*.conv"))["*.*.conv"] == [
        "down.0.conv",
        "down.1.conv",
        "up.left.conv",
        "up.right.conv",
    ]
    assert groups(layout_of("down.?"))["down.*"] == ["down.0", "down.1"]
    assert [b.name for b in layout_of("scale").blocks][-1] == "scale"


def test_a_module_that_matches_alone_is_unique_whatever_other_shapes():
    plain = ParameterLayout.from_shapes({f"{name}.weight": (4, 4) for name in "abcd"})
    assert len(plain.groups) == 1
    named = ParameterLayout.from_shapes({f"{name}.weight": (4, 4) for name in "abcd"}, blocks=["a"])
    assert [block.name for block in named.blocks] == ["a", "b", "c", "d"]
    assert named.groups == ()


def test_finer_granularities_cut_named_blocks_by_place():
    by_module = layout_of("down.*", granularity="module")
    assert [block.name for block in by_module.blocks][1:5] == [
        "down.0.conv",
        "down.0.norm",
        "down.1.conv",
        "down.1.norm",
    ]
    alike = {
        f"part.{at}.{kind}.weight": shape for at in range(3) for kind, shape in (("w", (2, 3)), ("b", (3,)))
    }
    cut = ParameterLayout.from_shapes(alike | {"x.weight": (9,)}, "tensor", blocks=["part.*"])
    assert groups(cut) == {
        "part.*.w.weight": [f"part.{at}.w.weight" for at in range(3)],
        "part.*.b.weight": [f"part.{at}.b.weight" for at in range(3)],
    }


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (["dwon.*"], r"blocks: got 'dwon\.\*'. Did you mean down.*\? Expected a pattern that matches mod"),
        (["down.*", "*.0"], r"blocks: got '\*\.0'; expected patterns that match no layer twice: down\.\* "),
    ],
)
def test_patterns_that_do_not_fit_are_refused(patterns, message):
    with pytest.raises(InputError, match=message):
        layout_of(*patterns)


def test_a_module_takes_patterns_too():
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 5), nn.Linear(5, 2))
    layout = ParameterLayout.from_module(model, blocks=["[01]"])
    assert groups(layout) == {"*": ["0", "1"]}
    assert layout.grouped_share == (15 + 20) / (15 + 20 + 12)
    assert torch.equal(layout.flatten(model), ParameterLayout.from_module(model).flatten(model))
