"""Tests every operation on every live backend against oracles that share no code with the package."""

import logging
import math
from itertools import pairwise

import pytest
import torch
from support import oracle

from fedtlu_fast.errors import BackendUnavailableError, InputError
from fedtlu_fast.ops import backends, dispatch, reference
from fedtlu_fast.ops.checks import TARGETS
from fedtlu_fast.ops.moments import Moments

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
UPDATE_DTYPES = (torch.float32, torch.float64)
NAN, INF = math.nan, math.inf

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in:RuntimeWarning")  # the interpreter's NumPy


def offsets_of(*lengths, start=0):
    return torch.tensor([start, *lengths]).cumsum(0)


def bits(tensor):
    integer = {2: torch.int16, 4: torch.int32, 8: torch.int64}[tensor.element_size()]
    return tensor.cpu().contiguous().view(integer)


def assert_same_bits(got, expected):
    assert torch.equal(bits(got), bits(expected))


def assert_moments(got, layers):
    columns = [getattr(got, name).cpu() for name in ("count", "mean", "m2", "abs_max", "nonfinite")]
    assert all(column.dtype == torch.float64 and column.shape == (len(layers),) for column in columns)
    for row, layer in zip(torch.stack(columns, dim=1).tolist(), layers, strict=True):
        oracle.assert_moments(row, layer.cpu().double().numpy(), m2_rel=1e-9, ratio_rel=1e-12)


def split(delta, offsets):
    return [delta[start:end] for start, end in pairwise(offsets.tolist())]


def random(size, dtype, generator, device, *, scale=1.0, shift=0.0):
    values = torch.randn(size, generator=generator, dtype=torch.float64) * scale + shift
    return values.to(dtype).to(device)


# --- layer_stats ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layer_stats_of_layers_of_odd_sizes(backend, backend_device, generator, dtype):
    lengths = [
        0,
        1,
        2,
        3,
        0,
        7,
        31,
        1,
        255,
        513,
        *torch.randint(1, 400, (4,), generator=generator).tolist(),
        0,
    ]
    offsets = offsets_of(*lengths)
    delta = random(int(offsets[-1]), dtype, generator, backend_device, shift=0.1)
    assert_moments(dispatch.layer_stats(delta, offsets, backend), split(delta, offsets))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layer_stats_list_of_any_shapes_strides_and_starts(backend, backend_device, generator, dtype):
    base = random(2000, dtype, generator, backend_device, shift=0.1)
    layers = [
        base[1:102].reshape(101, 1),
        base[200:600].reshape(20, 20).t(),
        base[3:900:7],
        base[5],
        base[:0].reshape(0, 4),
        base[40:100].reshape(3, 4, 5)[:, 1],
        base[:1].expand(9),
        base[1001:2000],
    ]
    assert_moments(dispatch.layer_stats_list(layers, backend), layers)


def test_layer_stats_list_mixes_dtypes(backend, backend_device, generator):
    layers = [
        random(size, dtype, generator, backend_device)
        for size, dtype in zip((40, 1, 0, 333, 8200, 17), (*DTYPES, *DTYPES), strict=False)
    ]
    assert_moments(dispatch.layer_stats_list(layers, backend), layers)


@pytest.mark.sweep(quick=3, backend="triton")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("skip", [1, 3])
def test_layer_stats_of_unaligned_starts_within_a_larger_vector(
    backend, backend_device, generator, dtype, skip
):
    delta = torch.full((700,), NAN, dtype=dtype, device=backend_device)
    offsets = offsets_of(5, 400, 0, 200, start=skip)
    delta[skip : offsets[-1]] = random(605, dtype, generator, backend_device)
    assert_moments(dispatch.layer_stats(delta, offsets, backend), split(delta, offsets))
    shifted = delta[skip:]
    near = offsets - skip
    assert_moments(dispatch.layer_stats(shifted, near, backend), split(shifted, near))


def test_layer_stats_of_a_strided_vector(backend, backend_device, generator):
    delta = random(1500, torch.float32, generator, backend_device)[::3]
    offsets = offsets_of(100, 399, 1)
    assert_moments(dispatch.layer_stats(delta, offsets, backend), split(delta, offsets))


def test_layer_stats_of_a_tensor_with_gradients(backend, backend_device, generator):
    delta = random(64, torch.float32, generator, backend_device).requires_grad_()
    got = dispatch.layer_stats(delta * 2, offsets_of(64), backend)
    assert_moments(got, [delta.detach() * 2])
    assert not got.mean.requires_grad


def test_layer_stats_of_no_layer(backend, backend_device):
    assert dispatch.layer_stats(torch.ones(3, device=backend_device), offsets_of(), backend).mean.shape == (
        0,
    )
    assert dispatch.layer_stats_list([], backend).mean.shape == (0,)


@pytest.mark.sweep(quick=4, backend="triton")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("bad", [NAN, INF, -INF], ids=str)
def test_layer_stats_counts_nonfinite_elements_of_their_layer_only(
    backend, backend_device, generator, dtype, bad
):
    offsets = offsets_of(200, 300, 1, 99)
    delta = random(600, dtype, generator, backend_device)
    where = 200 + torch.randperm(300, generator=generator)[:7]
    delta[where] = bad
    delta[500] = bad
    got = dispatch.layer_stats(delta, offsets, backend)
    assert got.nonfinite.tolist() == [0, 7, 1, 0]
    assert_moments(got, split(delta, offsets))


def test_layer_stats_of_opposite_infinities(backend, backend_device):
    delta = torch.tensor([INF, -INF, 1.0, NAN], device=backend_device)
    assert_moments(dispatch.layer_stats(delta, offsets_of(3, 1), backend), [delta[:3], delta[3:]])


@pytest.mark.sweep(quick=6, backend="triton")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("value", [0.0, -0.0, 0.1, -3e4, "denormal", "max"], ids=str)
def test_layer_stats_of_a_constant_layer_has_no_deviation(backend, backend_device, dtype, value):
    special = {"denormal": torch.finfo(dtype).smallest_normal / 4, "max": torch.finfo(dtype).max}
    number = special.get(value, value)
    if value == "max" and dtype == torch.float64:
        number = 1e200  # the sum of what is larger is no float64
    delta = torch.full((777,), number, dtype=dtype, device=backend_device)
    layers = split(delta, offsets_of(1, 2, 773, 1))
    got = dispatch.layer_stats(delta, offsets_of(1, 2, 773, 1), backend)
    assert got.m2.tolist() == [0.0] * 4
    assert got.mean.tolist() == [float(delta[0])] * 4
    assert_moments(got, layers)


@pytest.mark.parametrize(
    ("dtype", "scale"),
    [
        (torch.float32, 1e-42),  # denormals
        (torch.float32, 3e37),
        (torch.bfloat16, 1e-39),
        (torch.bfloat16, 3e37),
        (torch.float16, 1e-6),
        (torch.float16, 1e4),
        (torch.float64, 1e-140),
        (torch.float64, 1e140),
    ],
    ids=str,
)
def test_layer_stats_at_the_ends_of_the_range(backend, backend_device, generator, dtype, scale):
    values = torch.randn(500, generator=generator, dtype=torch.float64).clamp(-4, 4)
    delta = ((values + 0.2) * scale).to(dtype).to(backend_device)
    assert delta.count_nonzero() > 250
    assert torch.isfinite(delta).all()
    assert_moments(dispatch.layer_stats(delta, offsets_of(499, 1), backend), split(delta, offsets_of(499, 1)))


@pytest.mark.parametrize("dtype", UPDATE_DTYPES, ids=str)
@pytest.mark.parametrize("ratio", [1e2, 1e4, 1e6, -1e6], ids=str)
def test_layer_stats_survives_cancellation(backend, backend_device, generator, dtype, ratio):
    """The ratio mean/std is a million."""
    delta = random(1001, dtype, generator, backend_device, shift=ratio)
    delta[0] += 50  # the element that sums are shifted by lies far off
    assert_moments(dispatch.layer_stats(delta, offsets_of(1001), backend), [delta])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_layer_stats_finds_a_mean_that_is_a_millionth_of_the_spread(
    backend, backend_device, generator, dtype
):
    """Changes of weight matrices look like this, and float32 norms fail on them."""
    half = random(1500, dtype, generator, backend_device)
    tiny = torch.tensor([1e-3, 1.5e-3], device=backend_device).to(dtype)
    delta = torch.cat([half, -half, tiny])
    got = dispatch.layer_stats(delta, offsets_of(len(delta)), backend)
    assert got.mean.item() == pytest.approx(float(tiny.double().sum()) / len(delta), rel=1e-9)
    assert_moments(got, [delta])


def test_layer_stats_of_an_outlier_among_tiny_values(backend, backend_device, generator):
    delta = random(2000, torch.float32, generator, backend_device, scale=1e-30)
    delta[1234] = 1e30
    assert_moments(dispatch.layer_stats(delta, offsets_of(2000), backend), [delta])


def test_layer_stats_has_the_same_bits_every_time(backend, backend_device, generator):
    delta = random(3000, torch.float32, generator, backend_device)
    first, second = (dispatch.layer_stats(delta, offsets_of(7, 2990, 3), backend) for _ in range(2))
    assert_same_bits(first.mean, second.mean)
    assert_same_bits(first.m2, second.m2)


def test_layer_stats_leaves_its_input_alone(backend, backend_device, generator):
    delta = random(300, torch.float32, generator, backend_device)
    before, offsets = delta.clone(), offsets_of(100, 200)
    dispatch.layer_stats(delta, offsets, backend)
    dispatch.layer_stats_list([delta, delta], backend)
    assert_same_bits(delta, before)
    assert offsets.tolist() == [0, 100, 300]


# --- accumulate_ ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_base", [True, False], ids=["base", "no_base"])
@pytest.mark.parametrize("size", [0, 1, 5, 1031])
def test_accumulate_has_the_bits_of_exact_arithmetic_rounded_once(
    backend, backend_device, generator, dtype, with_base, size
):
    weight = float(torch.rand((), generator=generator, dtype=torch.float64)) * 1000
    client, base = (random(size, dtype, generator, backend_device) for _ in range(2))
    start = random(size, TARGETS[dtype], generator, backend_device)
    expected, got = start.clone(), start.clone()
    reference.accumulate_(expected, client, base if with_base else None, weight)
    dispatch.accumulate_(got, client, base if with_base else None, weight, backend)
    assert_same_bits(got, expected)
    change = client.double() - base.double() if with_base else client.double()
    assert_same_bits(got, (start.double() + weight * change).to(TARGETS[dtype]))


def test_accumulate_with_awkward_numbers(backend, backend_device):
    tiny, huge = 1e-45, 3e38
    client = torch.tensor([0.0, -0.0, tiny, -tiny, huge, -huge, NAN, INF, -INF], device=backend_device)
    for weight in (0.0, -0.0, 1.0, -1 / 3, 1e300, 5e-324):
        got, expected = client.flip(0).contiguous(), client.flip(0).contiguous()
        dispatch.accumulate_(got, client, None, weight, backend)
        reference.accumulate_(expected, client, None, weight)
        assert torch.equal(got.isnan(), expected.isnan())
        assert_same_bits(got.nan_to_num(1.0, INF, -INF), expected.nan_to_num(1.0, INF, -INF))


def test_accumulate_takes_strided_and_unaligned_clients(backend, backend_device, generator):
    wide = random(900, torch.float32, generator, backend_device)
    got = torch.zeros(301, device=backend_device)[1:]
    dispatch.accumulate_(got, wide[::3], wide[1:301], 0.3, backend)
    expected = (0.3 * (wide[::3].double() - wide[1:301].double())).float()
    assert_same_bits(got.clone(), expected)


def test_accumulate_may_read_what_it_writes(backend, backend_device, generator):
    vector = random(100, torch.float32, generator, backend_device)
    expected = (vector.double() + 0.25 * vector.double()).float()
    dispatch.accumulate_(vector, vector, None, 0.25, backend)
    assert_same_bits(vector, expected)


def same_moments(got, expected):
    """Checks that moments [L] or [K, L] of two backends agree; their sums may round differently."""
    assert torch.equal(got.count, expected.count)
    assert torch.equal(got.nonfinite, expected.nonfinite)
    assert torch.equal(got.abs_max.nan_to_num(-1), expected.abs_max.nan_to_num(-1))
    spread = (expected.m2 / expected.count.clamp(min=1)).sqrt()
    near = (got.mean - expected.mean).abs() <= 1e-9 * spread + 1e-13 * expected.mean.abs()
    assert (near | expected.mean.isnan()).all()
    assert torch.equal(got.mean.isnan(), expected.mean.isnan())
    torch.testing.assert_close(got.m2, expected.m2, rtol=1e-11, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_base", [True, False], ids=["base", "no_base"])
def test_accumulate_finds_the_moments_of_what_it_wrote(backend, backend_device, generator, dtype, with_base):
    lengths = (1, 0, 63, 3000, 2, 0, 129)
    offsets = offsets_of(*lengths, start=5)
    size = 5 + sum(lengths) + 7  # elements before and behind the layers are added too
    client, base = (random(size, dtype, generator, backend_device) for _ in range(2))
    got = random(size, TARGETS[dtype], generator, backend_device)
    expected = got.clone()
    start = base if with_base else None
    moments = dispatch.accumulate_(got, client, start, 0.3, backend, offsets=offsets)
    assert dispatch.accumulate_(expected, client, start, 0.3, "reference") is None
    assert_same_bits(got, expected)
    assert_moments(moments, split(got, offsets))


# --- aggregate -----------------------------------------------------------------------------------


@pytest.mark.sweep(quick=4, backend="triton")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_base", [True, False], ids=["base", "no_base"])
@pytest.mark.parametrize("number", [1, 2, 5])
def test_aggregate_has_the_bits_of_one_client_after_another(
    backend, backend_device, generator, dtype, with_base, number
):
    lengths = (63, 0, 2500, 1, 2, 129)
    offsets = offsets_of(*lengths, start=3)
    size = 3 + sum(lengths) + 6
    clients = torch.stack([random(size, dtype, generator, backend_device) for _ in range(number)])
    base = random(size, dtype, generator, backend_device) if with_base else None
    weights = torch.rand(number, generator=generator, dtype=torch.float64)
    given = clients.clone()
    got, moments, each = dispatch.aggregate(
        clients, weights, offsets, base=base, client_stats=True, backend=backend
    )
    total = torch.zeros(size, dtype=torch.float64, device=backend_device)
    changes = []
    for client, weight in zip(clients, weights.tolist(), strict=True):
        change = client.double() - base.double() if with_base else client.double()
        total += weight * change
        changes.append(change.to(TARGETS[dtype]))
    assert_same_bits(got, total.to(TARGETS[dtype]))
    assert_same_bits(clients, given)
    assert_moments(moments, split(got, offsets))
    assert each.mean.shape == (number, len(lengths))
    for row, change in enumerate(changes):
        of_client = Moments(each.rows[:, row])
        assert_moments(of_client, split(change, offsets))
    again, moments, each = dispatch.aggregate(clients, weights, offsets, base=base, backend=backend)
    assert_same_bits(again, got)
    assert_moments(moments, split(got, offsets))
    assert each is None


@pytest.mark.sweep(quick=4, backend="triton")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("with_base", [True, False], ids=["base", "no_base"])
@pytest.mark.parametrize("number", [1, 3, 9])
def test_aggregate_with_norms_only(backend, backend_device, generator, dtype, with_base, number):
    lengths = (63, 0, 2500, 1, 2, 100 if backend == "triton" else 17_000, 129)
    offsets = offsets_of(*lengths, start=3)
    size = 3 + sum(lengths) + 6
    clients = torch.stack([random(size, dtype, generator, backend_device) for _ in range(number)])
    base = random(size, dtype, generator, backend_device) if with_base else None
    weights = torch.rand(number, generator=generator, dtype=torch.float64)
    plain = dispatch.aggregate(clients, weights, offsets, base=base, backend=backend)
    got, moments, squares = dispatch.aggregate(
        clients, weights, offsets, base=base, client_stats="norms", backend=backend
    )
    assert_same_bits(got, plain[0])
    same_moments(moments, plain[1])
    changes = clients.double() - (0 if base is None else base.double())
    true = torch.stack([layer.square().sum(dim=1) for layer in changes[:, 3:-6].split(lengths, dim=1)], dim=1)
    assert squares.dtype == torch.float64
    torch.testing.assert_close(squares, true, rtol=2e-7 if backend == "triton" else 1e-13, atol=0)
    # One value that is not finite is seen in its layer of its client only.
    clients[number - 1, 3 + 63 + 2499] = INF
    _, _, found = dispatch.aggregate(
        clients, weights, offsets, base=base, client_stats="norms", backend=backend
    )
    seen = torch.zeros_like(true, dtype=torch.bool)
    seen[number - 1, 2] = True
    assert torch.equal(found.isnan(), seen)
    assert torch.equal(found[~seen], squares[~seen])


def test_aggregate_refuses_other_facts_of_clients(backend, backend_device):
    clients = torch.ones(2, 3, device=backend_device)
    for wrong in ("norm", None, 1):
        with pytest.raises(InputError, match="client_stats"):
            dispatch.aggregate(clients, [1.0, 1.0], offsets_of(3), client_stats=wrong, backend=backend)


def test_aggregate_takes_strided_rows_and_writes_to_out(backend, backend_device, generator):
    wide = torch.stack([random(900, torch.float32, generator, backend_device) for _ in range(3)])
    clients, out = wide[:, ::3], torch.zeros(301, device=backend_device)[1:]
    got, _, _ = dispatch.aggregate(clients, [0.2, 0.3, 0.5], offsets_of(300), out=out, backend=backend)
    assert got.data_ptr() == out.data_ptr()
    shares = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    expected = sum(w * client.double() for w, client in zip(shares.tolist(), clients, strict=True))
    assert_same_bits(out.clone(), expected.float())


def test_aggregate_into_one_of_the_clients(backend, backend_device, generator):
    clients = [random(5000, torch.float32, generator, backend_device) for _ in range(6)]
    expected = dispatch.aggregate(clients, [0.5] * 6, offsets_of(5000), client_stats=True)
    got = dispatch.aggregate(
        clients, [0.5] * 6, offsets_of(5000), out=clients[4], client_stats=True, backend=backend
    )
    assert_same_bits(clients[4], expected[0])
    same_moments(got[1], expected[1])
    same_moments(got[2], expected[2])


def test_aggregate_with_awkward_numbers(backend, backend_device, generator):
    """NaN, Inf, subnormals and overflow appear in the vector, and only their layer and client count them."""
    clients = [random(400, torch.float32, generator, backend_device) for _ in range(3)]
    clients[1][10] = NAN
    clients[2][150] = INF
    clients[0][150] = -INF
    clients[0][250:] = 3e38
    clients[1][250:] = 3e38
    clients[2][200:250] *= 1e-44
    offsets, weights = offsets_of(100, 100, 200), [1.0, 0.7, -0.0]
    got, moments, each = dispatch.aggregate(clients, weights, offsets, client_stats=True, backend=backend)
    expected, true, of_clients = dispatch.aggregate(
        clients, weights, offsets, client_stats=True, backend="reference"
    )
    assert torch.equal(got.isnan(), expected.isnan())
    assert_same_bits(got.nan_to_num(1.0, INF, -INF), expected.nan_to_num(1.0, INF, -INF))
    same_moments(moments, true)
    same_moments(each, of_clients)
    assert moments.nonfinite.tolist() == [1, 1, 150]
    assert each.nonfinite.tolist() == [[0, 1, 0], [1, 0, 0], [0, 1, 0]]


def test_aggregate_of_nothing(backend, backend_device):
    nothing = [torch.zeros(0, device=backend_device)] * 2
    for layers in (0, 2):
        got, moments, each = dispatch.aggregate(
            nothing, [1.0, 1.0], offsets_of(*[0] * layers), client_stats=True, backend=backend
        )
        assert got.shape == (0,)
        assert moments.count.tolist() == [0] * layers
        assert each.count.shape == (2, layers)
    out, moments, _ = dispatch.aggregate(
        torch.ones(2, 4, device=backend_device), [1.0, 2.0], offsets_of(), backend=backend
    )
    assert out.tolist() == [3.0] * 4
    assert len(moments.count) == 0


def test_aggregate_of_tensors_with_gradients(backend, backend_device):
    clients = torch.nn.Parameter(torch.ones(2, 4, device=backend_device))
    got, _, _ = dispatch.aggregate(clients, [1.0, 2.0], offsets_of(4), backend=backend)
    assert got.tolist() == [3.0] * 4
    assert not got.requires_grad


# --- masked_apply_ -------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_masked_apply_has_the_bits_of_the_reference(backend, backend_device, generator, dtype):
    offsets = offsets_of(1, 0, 63, 700, 2, 129, 0, 5)
    mask = torch.rand(8, generator=generator) < 0.5
    mask[3] = True
    params = random(900, TARGETS[dtype], generator, backend_device)
    delta = random(900, dtype, generator, backend_device)
    lr = float(torch.rand((), generator=generator, dtype=torch.float64)) * 3
    expected, before = params.clone(), params.clone()
    reference.masked_apply_(expected, delta, offsets, mask, lr)
    dispatch.masked_apply_(params, delta, offsets, mask, lr, backend)
    assert_same_bits(params, expected)
    for layer, chosen in enumerate(mask.tolist()):
        part = slice(int(offsets[layer]), int(offsets[layer + 1]))
        moved = (before[part].double() + lr * delta[part].double()).to(params.dtype)
        assert_same_bits(params[part], moved if chosen else before[part])


@pytest.mark.parametrize("dtype", UPDATE_DTYPES, ids=str)
def test_masked_apply_leaves_every_bit_of_layers_that_are_not_chosen(backend, backend_device, dtype):
    """Adding zero would turn -0.0 into 0.0 and may quieten a signalling NaN."""
    odd = {torch.float32: 0x7F812345, torch.float64: 0x7FF0000012345678}[dtype]
    integer = {torch.float32: torch.int32, torch.float64: torch.int64}[dtype]
    params = torch.zeros(90, dtype=integer)
    params[0::3] = odd
    params[1::3] = torch.tensor([-0.0], dtype=dtype).view(integer)
    params = params.view(dtype).to(backend_device)
    before = params.clone()
    delta = torch.full((90,), NAN, dtype=dtype, device=backend_device)
    offsets = offsets_of(10, 31, 9, 30, start=5)
    mask = torch.tensor([False, True, False, False])
    dispatch.masked_apply_(params, delta, offsets, mask, 0.0, backend)
    untouched = torch.ones(90, dtype=torch.bool)
    untouched[15:46] = False
    assert_same_bits(params[untouched], before[untouched])
    assert params[15:46].isnan().all()


def test_masked_apply_with_nothing_chosen_or_nothing_there(backend, backend_device, generator):
    params = random(20, torch.float32, generator, backend_device)
    before = params.clone()
    none = torch.zeros(2, dtype=torch.bool)
    dispatch.masked_apply_(params, params.clone(), offsets_of(4, 16), none, 1.0, backend)
    dispatch.masked_apply_(params, params.clone(), offsets_of(), none[:0], 1.0, backend)
    dispatch.masked_apply_(params, params.clone(), offsets_of(0, 0), ~none, 1.0, backend)
    assert_same_bits(params, before)


def test_masked_apply_takes_a_strided_delta_and_mask(backend, backend_device, generator):
    params, wide = (random(size, torch.float32, generator, backend_device) for size in (50, 100))
    mask = torch.tensor([True, True, False, True, True, True])[::2]
    expected = params.clone()
    expected[:20] = (params[:20].double() + wide[::2][:20].double()).float()
    expected[40:] = (params[40:].double() + wide[::2][40:].double()).float()
    dispatch.masked_apply_(params, wide[::2], offsets_of(20, 20, 10), mask, 1.0, backend)
    assert_same_bits(params, expected)


def test_masked_apply_to_tensors_with_gradients(backend, backend_device):
    params = torch.nn.Parameter(torch.zeros(4, device=backend_device))
    chosen = torch.tensor([True])
    dispatch.masked_apply_(params, torch.ones(4, device=backend_device), offsets_of(4), chosen, 2.0, backend)
    assert params.tolist() == [2.0] * 4


# --- the checks that come before every backend ---------------------------------------------------


def stats(delta, offsets):
    return lambda: dispatch.layer_stats(delta, offsets)


def add(aggregate, client, base=None, weight=1.0):
    return lambda: dispatch.accumulate_(aggregate, client, base, weight)


def total(clients, weights, **others):
    return lambda: dispatch.aggregate(clients, weights, CUTS, **others)


def apply(params, delta, offsets, mask, lr=1.0):
    return lambda: dispatch.masked_apply_(params, delta, offsets, mask, lr)


V, W, CUTS, M = torch.zeros(4), torch.ones(4), torch.tensor([0, 1, 4]), torch.tensor([True, False])
META = torch.zeros(4, device="meta")
REFUSED = {
    "integers": (stats(V.int(), CUTS), "delta.dtype"),
    "complex": (stats(V.to(torch.complex64), CUTS), "delta.dtype"),
    "a matrix": (stats(V.reshape(2, 2), CUTS), "delta.shape"),
    "a scalar": (stats(V[0], CUTS), "delta.shape"),
    "offsets of int32": (stats(V, CUTS.int()), "offsets"),
    "no offsets": (stats(V, CUTS[:0]), "offsets"),
    "offsets in two dimensions": (stats(V, CUTS[None]), "offsets"),
    "offsets elsewhere": (stats(V, CUTS.to("meta")), "offsets"),
    "offsets that fall": (stats(V, torch.tensor([0, 3, 2])), "offsets"),
    "offsets below zero": (stats(V, torch.tensor([-1, 2])), "offsets"),
    "offsets beyond the end": (stats(V, torch.tensor([0, 5])), "offsets"),
    "a list of integers": (lambda: dispatch.layer_stats_list([V, V.long()]), r"delta\[1\].dtype"),
    "no list": (lambda: dispatch.layer_stats_list(None), "delta"),
    "a number as a list": (lambda: dispatch.layer_stats_list(3), "delta"),
    "a text as a list": (lambda: dispatch.layer_stats_list("weights"), "delta"),
    "a mapping as a list": (lambda: dispatch.layer_stats_list({"weight": V}), "delta"),
    "a scalar as a list": (lambda: dispatch.layer_stats_list(V[0]), r"delta\.shape"),
    "an iterator of numbers": (lambda: dispatch.layer_stats_list(iter([V, 3])), r"delta\[1\]"),
    "a list on two devices": (lambda: dispatch.layer_stats_list([V, META]), r"delta\[1\].device"),
    "an aggregate of bfloat16": (add(V.bfloat16(), W.bfloat16()), "aggregate.dtype"),
    "an aggregate with gaps": (add(torch.zeros(8)[::2], W), "aggregate.stride"),
    "an aggregate of rows": (add(V[None], W[None]), "aggregate.shape"),
    "a client of another length": (add(V, W[:3]), "client"),
    "a client of another dtype": (add(V, W.double()), "client.dtype"),
    "a client that is narrower than float64": (add(V.double(), W), "client.dtype"),
    "a base of another dtype": (add(V, W, W.bfloat16()), "base"),
    "offsets too long for the aggregate": (
        lambda: dispatch.accumulate_(V, W, None, 1.0, offsets=torch.tensor([0, 5])),
        "offsets",
    ),
    "no clients": (total([], []), "clients"),
    "a vector as clients": (total(V, [1.0]), "clients.shape"),
    "clients of integers": (total([V.int()], [1.0]), r"clients\[0\].dtype"),
    "clients of several lengths": (total([V, V[:3]], [1.0, 1.0]), r"clients\[1\]"),
    "clients of several dtypes": (total([V, V.half()], [1.0, 1.0]), r"clients\[1\]"),
    "clients on two devices": (total([V, META], [1.0, 1.0]), r"clients\[1\]"),
    "a client that is a matrix": (total([V[None]], [1.0]), r"clients\[0\].shape"),
    "too few weights": (total([V, W], [1.0]), "weights.shape"),
    "a weight of NaN among others": (total([V, W], [1.0, NAN]), "weights"),
    "offsets too long for the clients": (
        lambda: dispatch.aggregate([V], [1.0], torch.tensor([0, 5])),
        "offsets",
    ),
    "a base for other clients": (total([V], [1.0], base=W[:3]), "base"),
    "a place that is too narrow": (total([V], [1.0], out=torch.zeros(4).half()), "out.dtype"),
    "a place that is too wide": (total([V], [1.0], out=torch.zeros(4).double()), r"clients\[0\].dtype"),
    "a place that is too short": (total([V], [1.0], out=torch.zeros(3)), r"clients\[0\]"),
    "a place with gaps": (total([V], [1.0], out=torch.zeros(8)[::2]), "out.stride"),
    "a client elsewhere": (add(V, META), "client"),
    "a base of another length": (add(V, W, W[:3]), "base"),
    "a base elsewhere": (add(V, W, META), "base"),
    "a weight of NaN": (add(V, W, None, NAN), "weight"),
    "an infinite weight": (add(V, W, None, -INF), "weight"),
    "params of float16": (apply(V.half(), W.half(), CUTS, M), "params.dtype"),
    "params with gaps": (apply(torch.zeros(8)[::2], W, CUTS, M), "params.stride"),
    "a delta of another dtype": (apply(V, W.double(), CUTS, M), "delta.dtype"),
    "a delta of another length": (apply(V, W[:2], CUTS, M), "delta"),
    "a mask of numbers": (apply(V, W, CUTS, M.int()), "mask"),
    "a mask that is too long": (apply(V, W, CUTS, torch.ones(3, dtype=torch.bool)), "mask"),
    "a mask elsewhere": (apply(V, W, CUTS, M.to("meta")), "mask"),
    "offsets too long for params": (apply(V, W, torch.tensor([0, 1, 5]), M), "offsets"),
    "a learning rate of NaN": (apply(V, W, CUTS, M, NAN), "lr"),
    "an infinite learning rate": (apply(V, W, CUTS, M, INF), "lr"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_arguments_are_refused_and_nothing_is_changed(case):
    call, field = REFUSED[case]
    with pytest.raises(InputError, match=f"^{field}: got .*; expected "):
        call()
    assert V.tolist() == [0.0] * 4


def test_an_unknown_backend_is_refused_with_the_names_there_are():
    with pytest.raises(InputError, match=r"backend: got 'cuda'.*auto.*native.*reference"):
        dispatch.layer_stats(V, CUTS, "cuda")


def test_a_backend_on_a_device_it_does_not_take_says_so():
    with pytest.raises(BackendUnavailableError, match=r"'native' cannot run on meta .*fedtlu env"):
        dispatch.layer_stats(META, CUTS, "native")
    with pytest.raises(BackendUnavailableError, match="no backend runs on meta"):
        dispatch.layer_stats(META, CUTS)


@pytest.fixture
def without_native(monkeypatch):
    """Imitates a machine where the extension was not built."""
    absent = backends.Backend("native", "fedtlu_fast.ops.absent", lambda: ("cpu",))
    monkeypatch.setitem(backends.BACKENDS, "native", absent)
    backends._load.cache_clear()
    backends._best.cache_clear()
    yield
    monkeypatch.undo()
    backends._load.cache_clear()
    backends._best.cache_clear()


@pytest.mark.usefixtures("without_native")
def test_a_missing_backend_asked_for_by_name_raises_and_auto_takes_the_next(caplog):
    assert "native" not in backends.live_backends()
    with pytest.raises(BackendUnavailableError, match=r"absent.*Live here: .*reference"):
        dispatch.layer_stats(V, CUTS, "native")
    with caplog.at_level(logging.INFO, "fedtlu_fast"):
        for _ in range(3):
            assert dispatch.layer_stats(V, CUTS).count.tolist() == [1, 3]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "reference" in caplog.messages[1]


def test_auto_never_takes_the_interpreter():
    assert backends.resolve("auto", "cpu").__name__ != "fedtlu_fast.ops.triton"


def test_layer_stats_list_takes_rows_of_a_matrix_and_iterators(backend, backend_device, generator):
    matrix = torch.randn(3, 5, generator=generator).to(backend_device)
    expected = dispatch.layer_stats_list(list(matrix), backend).rows
    for given in (matrix, iter(matrix), tuple(matrix)):
        assert torch.equal(dispatch.layer_stats_list(given, backend).rows, expected)
