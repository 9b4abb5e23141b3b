"""Tests the operations as PyTorch's own: schemas, compiled code, profiles and CUDA graphs."""

import pytest
import torch

from fedtlu_fast.errors import InputError
from fedtlu_fast.ops import dispatch, torch_ops  # noqa: F401  (the second registers them)

OPS = torch.ops.fedtlu
OFFSETS = torch.tensor([0, 3, 3, 90])
MASK = torch.tensor([True, True, False])
WEIGHTS = torch.tensor([0.25, 0.5], dtype=torch.float64)


def normal(seed, dtype=torch.float32, size=100):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed)).to(dtype)


@pytest.mark.sweep(quick=1)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("based", [False, True], ids=["no base", "base"])
def test_the_operations_are_what_their_schemas_say(dtype, based):
    target, client, other = normal(0), normal(1, dtype), normal(2, dtype)
    base = normal(3, dtype) if based else None
    torch.library.opcheck(OPS.layer_stats.default, (client, OFFSETS))
    torch.library.opcheck(OPS.layer_stats_list.default, ([client, normal(4, dtype, 0)],))
    torch.library.opcheck(OPS.accumulate_.default, (target, client, base, 0.3))
    torch.library.opcheck(OPS.accumulate_.default, (target, client, base, 0.3, OFFSETS))
    for stats in ("nothing", "moments", "norms"):
        given = (target, [client, other], WEIGHTS, OFFSETS, base, stats)
        torch.library.opcheck(OPS.aggregate.default, given)
    torch.library.opcheck(OPS.masked_apply_.default, (target, client, OFFSETS, MASK, 0.5))


def use_all(target, client, other, base, weight):
    """Calls every operation; returns all results."""
    found = [dispatch.layer_stats(client, OFFSETS), dispatch.layer_stats_list([client, other[:0]])]
    dispatch.accumulate_(target, client, base, weight)
    found.append(dispatch.accumulate_(target, other, None, 0.5, offsets=OFFSETS))
    summed, moments, each = dispatch.aggregate([client, other], WEIGHTS, OFFSETS, client_stats=True)
    again, _, norms = dispatch.aggregate(
        torch.stack([client, other]), [0.25, 0.5], OFFSETS, base=base, client_stats="norms"
    )
    dispatch.masked_apply_(target, summed, OFFSETS, MASK, weight)
    found += [moments, each]
    rows = [torch.stack((one.count, one.mean, one.m2, one.abs_max, one.nonfinite)) for one in found]
    return target, summed, again, norms, *rows


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_code_gives_the_same_bits(backend):
    compiled = torch.compile(use_all, fullgraph=True, backend=backend)
    for weight in (0.3, 0.7):
        given = [normal(seed) for seed in range(4)]
        expected = use_all(given[0].clone(), *given[1:], weight)
        target = given[0].clone()
        got = compiled(target, *given[1:], weight)
        assert torch.equal(target, expected[0])
        for one, other in zip(got, expected, strict=True):
            assert torch.equal(one, other)


def test_compiled_code_refuses_what_is_refused_elsewhere():
    compiled = torch.compile(lambda delta: dispatch.layer_stats(delta, OFFSETS).mean, backend="aot_eager")
    with pytest.raises(InputError, match="offsets"):
        compiled(normal(0, size=10))


def test_unknown_statistics_of_clients_are_refused():
    client = normal(0)
    with pytest.raises(InputError, match=r"client_stats: got 'norm'\. Did you mean norms"):
        OPS.aggregate(torch.zeros(100), [client, client], WEIGHTS, OFFSETS, None, "norm")
    for wrong in ("norm", 1):
        asked = torch.compile(
            lambda one, wrong=wrong: dispatch.aggregate([one, one], WEIGHTS, OFFSETS, client_stats=wrong),
            backend="eager",
        )
        with pytest.raises(InputError, match=r'client_stats: got .*; expected True, False or "norms"'):
            asked(client)


def test_what_is_asked_of_clients_may_be_a_subclass_of_str():
    class Name(str):
        pass

    _, _, norms = dispatch.aggregate([normal(0)], [1.0], OFFSETS, client_stats=Name("norms"))
    assert torch.equal(norms, dispatch.aggregate([normal(0)], [1.0], OFFSETS, client_stats="norms")[2])


def test_nested_clients_are_refused():
    nested = torch.nested.nested_tensor([normal(0, size=2), normal(1, size=3)], layout=torch.jagged)
    for given in (nested, [nested]):
        with pytest.raises(InputError, match="clients"):
            dispatch.aggregate(given, [1.0], OFFSETS)


def test_a_profile_names_the_operations():
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        OPS.layer_stats(normal(0), OFFSETS)
        OPS.accumulate_(normal(0), normal(1), None, 0.3)
        OPS.aggregate(normal(0), [normal(1), normal(2)], WEIGHTS, OFFSETS)
        OPS.masked_apply_(normal(0), normal(1), OFFSETS, MASK)
    names = {event.key for event in profile.key_averages()}
    assert {
        f"fedtlu::{name}" for name in ("layer_stats", "accumulate_", "aggregate", "masked_apply_")
    } <= names


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a GPU")
def test_a_cuda_graph_replays_the_operations():
    target, client = normal(0).cuda(), normal(1).cuda()

    def step():
        OPS.accumulate_(target, client, None, 0.5)
        return OPS.layer_stats(target, OFFSETS)

    step()  # once before capture: the tables of tiles are then on the device
    target.zero_()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        rows = step()
    target.zero_()
    graph.replay()
    graph.replay()
    assert torch.equal(target, client)
    assert torch.equal(rows, OPS.layer_stats(client, OFFSETS))
