import pytest

from fedtlu_fast import InputError
from fedtlu_fast.changes.matching import core, matched, natural

NAMES = ["wte.weight", "h.0.attn.weight", "h.0.attn.bias", "h.10.attn.weight", "ln.weight"]


@pytest.mark.parametrize(
    "prefix",
    [
        "transformer.",
        "model.",
        "base_model.model.",
        "_orig_mod.",
        "module.",
        "_orig_mod.module.",
        "module._orig_mod.transformer.",
        "base_model.model.model.",
        "bert.",
        "some.thing.",
        "_forward_module.model.",
    ],
)
def test_a_prefix_on_either_side_is_matched(prefix: str) -> None:
    longer = [f"{prefix}{name}" for name in NAMES]
    assert matched(NAMES, longer) == dict(zip(NAMES, longer, strict=True))
    assert matched(longer, NAMES) == dict(zip(longer, NAMES, strict=True))


def test_prefixes_differ_from_name_to_name() -> None:
    old = ["model.h.0.w", "model.norm.w", "lm_head.w"]
    new = ["h._orig_mod.0._orig_mod.w", "norm.module.w", "lm_head.w"]
    assert matched(old, new) == dict(zip(sorted(old), ["lm_head.w", new[0], new[1]], strict=True))
    assert matched(["a.w", "head.w"], ["module.transformer.a.w", "module.head.w"]) == {
        "a.w": "module.transformer.a.w",
        "head.w": "module.head.w",
    }


def test_one_prefix_explains_what_is_left_beside_other_tensors() -> None:
    assert matched(["a.w", "b.w"], ["bert.a.w", "bert.b.w", "classifier.w"]) == {
        "a.w": "bert.a.w",
        "b.w": "bert.b.w",
    }


def test_the_whole_prefix_goes_before_names_that_happen_to_be_equal() -> None:
    assert matched(["a.w", "model.a.w"], ["model.a.w", "model.model.a.w"]) == {
        "a.w": "model.a.w",
        "model.a.w": "model.model.a.w",
    }


def test_equal_names_need_no_rule() -> None:
    names = ["a.w", "model.a.w", "module.a.w", "_orig_mod.a.w", "h.10.w", "h.9.w"]
    assert list(matched(names, reversed(names))) == sorted(names, key=natural)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        (["a.w"], ["model.a.w", "transformer.a.w"], "model.a.w and transformer.a.w"),
        (["model.a.w", "module.a.w"], ["a.w"], "model.a.w and module.a.w"),
        (["a.w", "model.a.w"], ["transformer.a.w", "module.a.w"], "module.a.w and transformer.a.w"),
        (["a.w"], ["x.a.w", "y.a.w"], "x.a.w and y.a.w"),
        (["_orig_mod.a.w", "a.w"], ["a.w"], "_orig_mod.a.w and a.w"),
    ],
)
def test_what_could_be_either_is_an_error_that_names_both(old: list[str], new: list[str], named: str) -> None:
    with pytest.raises(InputError) as raised:
        matched(old, new)
    assert named in str(raised.value)


def test_what_has_no_partner_is_left_out() -> None:
    assert matched(["a.w", "b.w"], ["a.w"]) == {"a.w": "a.w"}
    assert matched(["a.w"], ["c.w"]) == {}
    assert matched([], ["c.w"]) == {}


def test_a_tensor_may_be_called_as_a_wrapper() -> None:
    assert core("module") == core("model.module") == "module"
    assert matched(["module"], ["model.module"]) == {"module": "model.module"}


def test_natural_order_takes_any_name() -> None:
    names = ["h.2", "h.10", "h.²", "h.٣", "h.0", "h." + "9" * 5000, "", "7", "h"]
    assert sorted(names, key=natural).index("h.2") < sorted(names, key=natural).index("h.10")
    assert sorted(["h.010", "h.9"], key=natural) == ["h.9", "h.010"]
