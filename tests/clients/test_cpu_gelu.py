"""Tests of the GELU in C++ that local training uses on a CPU."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from support.sampling import seed
from torch import nn
from torch.nn import functional as F

from fedtlu_fast.clients import cpu_gelu
from fedtlu_fast.clients.cpu_gelu import with_cpu_gelu

native = pytest.importorskip("fedtlu_fast.ops.native", reason="the C++ extension is not built")


class Activation(nn.Module):
    """An activation as in transformers."""

    def __init__(self) -> None:
        super().__init__()
        self.act = partial(F.gelu, approximate="tanh")

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  (as theirs)
        found: torch.Tensor = self.act(input)
        return found


def numbers(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed()))


@pytest.mark.parametrize("module", [nn.GELU(approximate="tanh"), Activation()])
def test_values_and_gradients_are_those_of_float64(module: nn.Module) -> None:
    x = numbers(3, 41, 53).requires_grad_()
    weights = numbers(3, 41, 53)
    found = []

    def loss(batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        found.append(module(batch[0]))
        return (found[-1] * weights).sum()

    computed = with_cpu_gelu(loss, module)
    assert computed is not loss
    computed((x,)).backward()  # type: ignore[no-untyped-call]
    assert "_Gelu" in type(found[0].grad_fn).__name__
    exact = x.detach().double().requires_grad_()
    value = F.gelu(exact, approximate="tanh")
    (value * weights).sum().backward()
    assert exact.grad is not None
    torch.testing.assert_close(found[0].double(), value, rtol=2e-6, atol=1e-8)
    torch.testing.assert_close(x.grad, exact.grad.float(), rtol=2e-6, atol=4e-6)
    # Outside of the loss, the module is torch's again.
    assert torch.equal(module(x), F.gelu(x, approximate="tanh"))
    assert "forward" not in module.__dict__


def test_every_number_has_its_value_and_derivative_on_every_simd_level() -> None:
    special = [0.0, -0.0, 1e-40, 9.0, -9.0, 9.5, -9.5, 1e30, -1e30, torch.inf, -torch.inf, torch.nan]
    x = torch.cat([torch.linspace(-12, 12, 40_007), torch.tensor(special)])
    exact = x.double().requires_grad_()
    value = F.gelu(exact, approximate="tanh")
    value.sum().backward()
    assert exact.grad is not None
    level, outcomes = native.extension.simd_level(), []
    try:
        for one in native.extension.simd_levels():
            native.extension.set_simd_level(one)
            for threads in (1, 3):
                out, slope = torch.empty_like(x), torch.empty_like(x)
                native.extension.gelu(out.numpy(), slope.numpy(), x.numpy(), threads)
                alone = torch.empty_like(x)
                native.extension.gelu(alone.numpy(), None, x.numpy(), threads)
                assert torch.equal(alone[:-1].view(torch.int32), out[:-1].view(torch.int32))
                outcomes.append((out, slope))
    finally:
        native.extension.set_simd_level(level)
    for out, slope in outcomes:
        # All bits but those of NaN.
        for mine, first in zip((out, slope), outcomes[0], strict=True):
            assert torch.equal(mine[:-1].view(torch.int32), first[:-1].view(torch.int32))
        usual = len(x) - 5
        torch.testing.assert_close(out[:usual].double(), value[:usual], rtol=1e-6, atol=1e-7)
        torch.testing.assert_close(slope[:usual].double(), exact.grad[:usual], rtol=1e-6, atol=1e-6)
        assert out[-5:-1].tolist() == pytest.approx([1e30, 0, torch.inf, 0], rel=1e-6, abs=1e-27)
        assert slope[-5:-1].tolist() == pytest.approx([1, 0, 1, 0], abs=1e-26)
        assert out[-1].isnan()
        assert slope[-1].isnan()


def test_torch_keeps_what_is_not_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    module = nn.GELU(approximate="tanh")
    computed = with_cpu_gelu(lambda batch: module(batch[0]), module)
    x = numbers(cpu_gelu.FEWEST)
    for other in (x.double(), x[:-1], x.view(64, -1).t(), x.bfloat16()):
        assert torch.equal(computed((other,)), F.gelu(other, approximate="tanh"))
    each = torch.func.vmap(lambda one: computed((one,)))(x.view(4, -1).repeat(1, 8))
    assert each.shape == (4, 2 * cpu_gelu.FEWEST)
    assert not torch.equal(computed((x,)), F.gelu(x, approximate="tanh"))


def test_a_loss_that_raises_leaves_the_module_as_it_was() -> None:
    for module in (nn.GELU(approximate="tanh"), Activation()):
        before = dict(module.__dict__)

        def loss(batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
            raise ValueError("no loss")

        with pytest.raises(ValueError, match="no loss"):
            with_cpu_gelu(loss, module)((numbers(3),))
        assert module.__dict__ == before


def test_a_second_backward_pass_is_refused() -> None:
    module = nn.GELU(approximate="tanh")
    x = numbers(cpu_gelu.FEWEST).requires_grad_()
    found = with_cpu_gelu(lambda batch: module(batch[0]).sum(), module)((x,))
    found.backward(retain_graph=True)  # type: ignore[no-untyped-call]
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        found.backward()  # type: ignore[no-untyped-call]


def test_only_models_that_apply_it_get_it() -> None:
    def loss(batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return batch[0].sum()

    class Own(nn.GELU):
        def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
            return input

    other = Activation()
    other.act = partial(F.gelu, approximate="none")
    for module in (nn.Linear(2, 2), nn.GELU(), Own(approximate="tanh"), other):
        assert with_cpu_gelu(loss, module) is loss
    assert with_cpu_gelu(loss, nn.Sequential(nn.GELU(approximate="tanh"))) is not loss


@pytest.mark.parametrize("wrong", ["shape", "type", "shared", "slope"])
def test_the_kernel_refuses_arrays_that_do_not_fit(wrong: str) -> None:
    x, out, slope = (torch.zeros(64).numpy() for _ in range(3))
    given = {
        "shape": (out[:-1], slope, x),
        "type": (out, slope, x.astype("float64")),
        "shared": (x, slope, x),
        "slope": (out, out, x),
    }[wrong]
    with pytest.raises((TypeError, ValueError)):
        native.extension.gelu(*given, 1)
    assert not out.any()
