"""`layer_stats`, the public function for statistics, for every form of a change."""

import doctest
import math
from dataclasses import fields

import pytest
import torch
from support.model_zoo import Scalars, gpt2

from fedtlu_fast import InputError, ParameterLayout, layer_stats
from fedtlu_fast.scoring import statistics

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # the interpreter's NumPy

NUMBERS = ("count", "mean", "std", "l2", "abs_max", "nonfinite")


def assert_equal(got, expected):
    assert got.names == expected.names
    for name in NUMBERS:
        a, b = getattr(got, name), getattr(expected, name)
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0, equal_nan=True)


def random_layers(generator, dtype=torch.float32):
    shapes = {"a.weight": (7, 5), "a.bias": (5,), "scalar": (), "none": (0, 3), "long": (1000,)}
    return {
        name: torch.randn(shape, generator=generator).add(0.1).to(dtype) for name, shape in shapes.items()
    }


def test_numbers_of_a_layer_done_by_hand():
    got = layer_stats([torch.tensor([1.0, -2.0, 3.0, 2.0])])
    assert got.names == ("0",)
    assert got.count.tolist() == [4]
    assert got.mean.tolist() == [1.0]
    assert got.std.item() == pytest.approx(math.sqrt((0 + 9 + 4 + 1) / 4), rel=1e-15)
    assert got.l2.item() == pytest.approx(math.sqrt(18), rel=1e-15)
    assert got.abs_max.tolist() == [3.0]
    assert got.nonfinite.tolist() == [0]
    assert len(got) == 1


def test_std_and_norm_are_torchs(backend, generator):
    layers = random_layers(generator)
    got = layer_stats(layers, backend=backend)
    assert {field.name for field in fields(got)} == {"names", *NUMBERS}
    for index, layer in enumerate(layers.values()):
        values = layer.double()
        if values.numel() > 1:
            assert got.std[index].item() == pytest.approx(values.std(correction=0).item(), rel=1e-12)
        assert got.l2[index].item() == pytest.approx(values.norm().item(), rel=1e-12)


def test_flat_mapping_and_sequence_agree(backend, generator):
    layout = ParameterLayout.from_module(gpt2(layers=1, width=8))
    delta = torch.randn(layout.size, generator=generator)
    flat = layer_stats(delta, layout, backend=backend)
    assert flat.names == layout.names
    views = layout.views(delta)
    assert_equal(layer_stats(views, backend=backend), flat)
    named = layer_stats(list(views.values()), backend=backend)
    assert named.names == tuple(map(str, range(len(layout.layers))))
    assert torch.equal(named.count, flat.count)
    torch.testing.assert_close(named.mean, flat.mean, rtol=1e-12, atol=0)


def test_scalar_and_empty_layers_of_a_model(backend):
    layout = ParameterLayout.from_module(Scalars())
    got = layer_stats(torch.full((layout.size,), 3.0), layout, backend=backend)
    assert got.count.tolist() == [1, 0, 9, 3]
    assert got.mean.tolist() == [3, 0, 3, 3]
    assert got.std.tolist() == [0] * 4
    assert got.l2.tolist() == pytest.approx([3, 0, 9, math.sqrt(27)], rel=1e-15)
    assert got.abs_max.tolist() == [3, 0, 3, 3]


def test_a_mapping_may_mix_dtypes(backend, generator):
    layers = random_layers(generator)
    exact = layer_stats({name: layer.bfloat16().double() for name, layer in layers.items()}, backend=backend)
    mixed = {name: layer.bfloat16() for name, layer in layers.items()}
    mixed["long"] = mixed["long"].double()
    mixed["a.bias"] = mixed["a.bias"].float()
    assert_equal(layer_stats(mixed, backend=backend), exact)


def test_parameters_and_strided_views_need_no_preparation(backend, generator):
    weight = torch.nn.Parameter(torch.randn(30, 20, generator=generator))
    got = layer_stats([weight, weight.t(), weight[::2, 1:7]], backend=backend)
    assert got.mean[0].item() == pytest.approx(got.mean[1].item(), rel=1e-12)
    assert got.mean[2].item() == pytest.approx(weight[::2, 1:7].double().mean().item(), rel=1e-12)
    assert not got.mean.requires_grad


def test_nonfinite_layers_have_nan_and_a_count(backend):
    layers = {"bad": torch.tensor([1.0, math.nan, math.inf]), "good": torch.tensor([1.0, 2.0])}
    got = layer_stats(layers, backend=backend)
    assert got.nonfinite.tolist() == [2, 0]
    assert all(math.isnan(getattr(got, name)[0]) for name in ("mean", "std", "l2", "abs_max"))
    assert (got.mean[1].item(), got.std[1].item()) == (1.5, 0.5)


@pytest.mark.parametrize("nothing", [{}, []], ids=["mapping", "sequence"])
def test_no_layer_gives_no_statistics(nothing):
    got = layer_stats(nothing)
    assert got.names == ()
    assert len(got) == 0
    assert got.mean.shape == (0,)


def test_cpu_keeps_everything(generator):
    got = layer_stats(random_layers(generator))
    assert_equal(got.cpu(), got)


LAYOUT = ParameterLayout.from_shapes({"a": (2, 2), "b": (3,)})


@pytest.mark.parametrize(
    ("delta", "layout", "message"),
    [
        (torch.zeros(7), None, "^layout: got None; expected the ParameterLayout"),
        (torch.zeros(6), LAYOUT, r"^delta.shape: got \(6,\); expected \(7,\)"),
        (torch.zeros(7, 1), LAYOUT, r"^delta.shape: got \(7, 1\)"),
        ({"a": torch.zeros(4)}, LAYOUT, "^layout: .*names its own layers"),
        ({"a": torch.zeros(4), "b": 3.0}, None, r"^delta\['b'\]: got 'float'; expected a torch.Tensor"),
        ([[1.0, 2.0]], None, r"^delta\['0'\]: got 'list'"),
        ({"a": torch.zeros(4, dtype=torch.int64)}, None, "int64.*float32, bfloat16"),
        (torch.zeros(7, dtype=torch.bool), LAYOUT, "bool"),
        ([torch.zeros(1), torch.zeros(1, device="meta")], None, "meta"),
    ],
    ids=["flat alone", "too short", "matrix", "both", "number", "list", "integers", "bool", "devices"],
)
def test_arguments_that_do_not_fit_are_refused(delta, layout, message):
    with pytest.raises(InputError, match=message):
        layer_stats(delta, layout)


def test_unknown_backend_is_refused():
    with pytest.raises(InputError, match="backend: got 'fast'"):
        layer_stats([torch.zeros(2)], backend="fast")


def test_examples_in_the_docstrings():
    result = doctest.testmod(statistics)
    assert result.attempted
    assert not result.failed
