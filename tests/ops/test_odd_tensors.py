"""Tests tensors without plain memory and targets with gradients: results are right, or errors name them."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from fedtlu_fast import InputError, ParameterLayout, aggregate, layer_stats
from fedtlu_fast.ops import dispatch, plain

pytestmark = pytest.mark.filterwarnings("ignore")
N = 6
VALUES = torch.arange(1.0, N + 1)
CUTS, MASK = torch.tensor([0, 2, N]), torch.tensor([True, False])
LAYOUT = ParameterLayout.from_shapes({"a": (2,), "b": (N - 2,)})


class Subclass(torch.Tensor):
    pass


class Wrapper(torch.Tensor):
    """Wraps a tensor and has no memory itself."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype)

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        raise NotImplementedError("wrapped")


def freed(size):
    tensor = VALUES.clone()
    tensor.untyped_storage().resize_(size)
    return tensor


def fake():
    with FakeTensorMode():
        return torch.empty(N)


RIGHT = {
    "negated": lambda: (-VALUES)._neg_view(),
    "of a conjugate": lambda: torch.complex(VALUES, -VALUES).conj().imag,
    "sparse": VALUES.to_sparse,
    "MKL-DNN's": VALUES.to_mkldnn,
    "a subclass": lambda: VALUES.clone().as_subclass(Subclass),
    "a parameter": lambda: torch.nn.Parameter(VALUES.clone()),
    "a column": lambda: torch.stack([VALUES, VALUES], dim=1)[:, 0],
}
REFUSED = {
    "freed": lambda: freed(0),
    "cut short": lambda: freed(4 * N - 4),
    "fake": fake,
    "nested": lambda: torch.nested.nested_tensor([VALUES, VALUES[:2]]),
    "jagged": lambda: torch.nested.nested_tensor([VALUES, VALUES[:2]], layout=torch.jagged),
    "a wrapper": lambda: Wrapper(VALUES),
    "masked": lambda: torch.masked.masked_tensor(VALUES, VALUES > 2),
    "quantised": lambda: torch.quantize_per_tensor(VALUES, 0.1, 0, torch.quint8),
    "lazy": torch.nn.UninitializedParameter,
    "an array": VALUES.numpy,
    "nothing": lambda: None,
}


def inputs(given, backend):
    """Calls every public operation with the tensor as an input; yields the results."""
    target, other = torch.zeros(N), VALUES.clone()
    yield "delta", lambda: dispatch.layer_stats(given, CUTS, backend).mean
    yield "delta", lambda: layer_stats({"w": given}, backend=backend).mean
    yield "delta", lambda: layer_stats((x for x in (given, VALUES)), backend=backend).mean
    yield "delta", lambda: layer_stats(given, LAYOUT, backend=backend).mean if given is not None else int("x")
    yield "client", lambda: (dispatch.accumulate_(target, given, None, 2.0, backend), target)[1]
    yield "base", lambda: (dispatch.accumulate_(target, other, given, 2.0, backend, offsets=CUTS), target)[1]
    yield "clients", lambda: aggregate([VALUES, given], [1, 3], LAYOUT, backend=backend).change
    yield "base", lambda: aggregate([VALUES], [1], LAYOUT, base=given, backend=backend).change
    yield "delta", lambda: (dispatch.masked_apply_(target, given, CUTS, MASK, 1.0, backend), target)[1]


@pytest.mark.parametrize("kind", RIGHT)
def test_tensors_in_other_layouts_are_read_right(kind, backend, backend_device):
    if backend_device != "cpu":
        pytest.skip("the kinds are the CPU's")
    odd, plain = inputs(RIGHT[kind](), backend), inputs(VALUES, backend)
    for (field, got), (_, wanted) in zip(odd, plain, strict=True):
        assert torch.equal(got(), wanted()), field


@pytest.mark.parametrize("kind", REFUSED)
def test_tensors_without_numbers_are_refused_by_name(kind, backend):
    given = REFUSED[kind]()
    for field, call in inputs(given, backend):
        if given is None and field == "base":
            continue
        with pytest.raises((InputError, ValueError)) as raised:
            call()
        if isinstance(raised.value, InputError):
            assert raised.value.field.startswith((field, "layout")), raised.value


@pytest.mark.parametrize("kind", [*REFUSED, "negated", "sparse", "MKL-DNN's", "a column"])
def test_targets_without_plain_memory_are_refused(kind, backend):
    given = {**RIGHT, **REFUSED}[kind]()
    calls = {
        "aggregate": lambda: dispatch.accumulate_(given, VALUES, None, 1.0, backend),
        "params": lambda: dispatch.masked_apply_(given, VALUES, CUTS, MASK, 1.0, backend),
        "out": lambda: aggregate([VALUES], [1], LAYOUT, out=given, backend=backend),
    }
    for field, call in calls.items():
        if given is None and field == "out":
            continue
        with pytest.raises(InputError, match=f"^{field}"):
            call()


def test_inside_vmap_and_grad_a_tensor_is_refused():
    for transform in (torch.vmap, lambda f: torch.func.grad(lambda x: f(x).sum()), torch.func.functionalize):
        with pytest.raises(InputError, match="delta"):
            transform(lambda x: layer_stats([x]).mean)(torch.ones(3, 4))


def changes(target, backend):
    yield lambda: dispatch.accumulate_(target, VALUES, None, 1.0, backend)
    yield lambda: dispatch.masked_apply_(target, VALUES, CUTS, MASK, 1.0, backend)
    yield lambda: aggregate([VALUES], [1], LAYOUT, out=target, backend=backend)


def test_autograd_hears_of_a_change(backend):
    for index in range(3):
        root = torch.ones(N, requires_grad=True)
        target = root * 1
        loss = (target * target).sum()
        with torch.no_grad():
            list(changes(target, backend))[index]()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_result_that_autograd_follows_is_changed_only_without_it(backend):
    for index in range(3):
        leaf = torch.ones(N, requires_grad=True)
        list(changes(leaf, backend))[index]()  # as an optimizer does
        result = torch.ones(N, requires_grad=True) * 1
        call = list(changes(result, backend))[index]
        with pytest.raises(InputError, match="grad_fn"):
            call()
        with torch.no_grad():
            call()
        assert torch.equal(leaf, result)
        assert not torch.equal(leaf, torch.ones(N))


def test_inference_tensors_are_changed_in_inference_mode_only(backend):
    with torch.inference_mode():
        target = torch.ones(N)
        for call in changes(target, backend):
            call()
    for call in changes(target, backend):
        with pytest.raises(InputError, match="inference"):
            call()


def test_inputs_that_overlap_the_target_in_part_are_refused(backend):
    memory = torch.ones(N + 1)
    target, beside = memory[:-1], memory[1:]
    half = memory.view(torch.bfloat16)[:N]
    for call in (
        lambda: dispatch.accumulate_(target, beside, None, 1.0, backend),
        lambda: dispatch.accumulate_(target, half, None, 1.0, backend),
        lambda: dispatch.accumulate_(target, VALUES, beside, 1.0, backend),
        lambda: dispatch.masked_apply_(target, beside, CUTS, MASK, 1.0, backend),
        lambda: aggregate([VALUES, beside], [1, 1], LAYOUT, out=target, backend=backend),
        lambda: aggregate([VALUES], [1], LAYOUT, base=beside, out=target, backend=backend),
    ):
        with pytest.raises(InputError, match="overlaps"):
            call()
    assert memory.tolist() == [1.0] * (N + 1)


@pytest.mark.parametrize("weight", [None, "1", "x", float("nan"), 1j, [1.0, 2.0], 10**400])
def test_weights_that_are_no_numbers_are_refused(weight):
    for call in (
        lambda: dispatch.accumulate_(torch.zeros(N), VALUES, None, weight),
        lambda: dispatch.masked_apply_(torch.zeros(N), VALUES, CUTS, MASK, weight),
        lambda: aggregate([VALUES], [weight], LAYOUT),
    ):
        with pytest.raises(InputError, match=r"weight|lr"):
            call()


def test_expanded_changes_are_read_without_a_copy(backend):
    huge = 1 << 36  # elements that no machine could copy
    got = dispatch.layer_stats(torch.tensor([-3.0]).expand(huge), torch.tensor([0, 0, 5, huge]), backend)
    assert got.count.tolist() == [0, 5, huge - 5]
    assert got.mean.tolist() == [0, -3, -3]
    assert got.m2.tolist() == [0, 0, 0]
    rows = torch.tensor([1.0, 3.0]).expand(huge, 2)
    got = layer_stats({"w": rows, "v": torch.ones(2, 3), "n": torch.tensor([float("nan")]).expand(9)})
    assert got.count.tolist() == [2 * huge, 6, 9]
    assert (got.mean[0].item(), got.std[0].item(), got.abs_max[0].item()) == (2, 1, 3)
    assert got.nonfinite.tolist() == [0, 0, 9]


class Largest(TorchDispatchMode):
    """Remembers the largest tensor that is made."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor) and "clone" in str(function):
            self.size = max(self.size, made.numel())
        return made


@pytest.mark.parametrize("expand", [True, False])
def test_vectors_with_gaps_are_copied_in_pieces_with_the_same_bits(backend, expand, generator, monkeypatch):
    size, cuts = 5000, torch.tensor([3, 900, 900, 4100, 5000])
    values = torch.randn(size, 2, generator=generator)
    strided = values[:1, 0].expand(size) if expand else values[:, 0]
    other, mask = values[:, 1].contiguous(), torch.tensor([True, False, False, True])
    layout = ParameterLayout.from_shapes({"w": (size,)})

    def results(given):
        target = other.clone()
        moments = dispatch.accumulate_(target, given, other, 0.3, backend, offsets=cuts)
        yield target.clone()
        torch.testing.assert_close(moments.mean, dispatch.layer_stats(target, cuts, backend).mean)
        dispatch.accumulate_(target, other, given, 0.7, backend)
        dispatch.masked_apply_(target, given, cuts, mask, 0.5, backend)
        yield target
        found = aggregate([given, other], [1, 2], layout, base=given, backend=backend)
        yield found.change
        torch.testing.assert_close(found.stats.mean, layer_stats(found.change, layout, backend=backend).mean)

    wanted = list(results(strided.contiguous()))
    monkeypatch.setattr(plain, "PIECE", 1000)
    target = other.clone()
    with Largest() as largest:
        dispatch.accumulate_(target, strided, None, 1.0, backend)
        dispatch.masked_apply_(target, strided, cuts, mask, 1.0, backend)
        aggregate([strided, other], [1, 2], layout, base=strided, backend=backend)
    assert largest.size == 1000
    got = list(results(strided))
    assert all(torch.equal(one, two) for one, two in zip(got, wanted, strict=True))


def test_gaps_that_lie_in_the_target_are_read_before_it_is_written(backend):
    target = torch.arange(8.0)
    dispatch.accumulate_(target, target[:1].expand(8), None, 1.0, backend)
    dispatch.accumulate_(target, target[7:].expand(8), None, 1.0, backend)
    assert target.tolist() == [value + 7 for value in range(8)]
