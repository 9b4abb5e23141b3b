"""Tests of what replaces torch's pooling and its gradients of first convolutions."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fedtlu_fast.clients import cpu_images
from fedtlu_fast.clients.cpu_images import CpuImages, with_cpu_images


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_images, "FEWEST", 1)
    monkeypatch.setattr(cpu_images, "TOGETHER", 500)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((3, 5, 8, 8), {"kernel_size": 2}),
        ((1, 1, 7, 9), {"kernel_size": (2, 3), "stride": 2, "padding": 1}),
        ((7, 3, 11, 5), {"kernel_size": 3, "stride": (1, 2), "ceil_mode": True}),
        ((2, 4, 9, 9), {"kernel_size": 2, "dilation": 2}),
    ],
)
def test_pooling_keeps_the_bits_of_values_and_gradients(shape: tuple[int, ...], settings: object) -> None:
    images = torch.randint(-2, 3, shape).float()  # many are equal
    images.view(-1)[::13] = float("nan")
    images.view(-1)[1::17] = float("inf")
    outcomes = []
    for mode in (False, True):
        leaf = images.clone().requires_grad_()
        if mode:
            with CpuImages():
                found = F.max_pool2d(leaf, **settings)  # type: ignore[call-overload]
            assert "_MaxPool" in type(found.grad_fn).__name__
        else:
            found = F.max_pool2d(leaf, **settings)  # type: ignore[call-overload]
        assert found.is_contiguous()
        torch.manual_seed(1)
        (found * torch.randn(found.shape)).nan_to_num(0, 0, 0).sum().backward()
        outcomes.append((found.detach(), leaf.grad))
    torch.testing.assert_close(*outcomes, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("image_grad", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    ("stride", "padding", "dilation"), [(1, 0, 1), (2, 1, 1), (1, (0, 2), 2)], ids=["plain", "stride", "far"]
)
def test_a_first_convolution_has_the_gradients_of_float64(
    stride: int, padding: int | tuple[int, int], dilation: int, bias: bool, image_grad: bool
) -> None:
    layer = nn.Conv2d(1, 6, (3, 2), stride, padding, dilation, bias=bias)
    images = torch.randn(5, 1, 11, 9, requires_grad=image_grad)
    with CpuImages():
        found = layer(images)
    assert "_Convolution" in type(found.grad_fn).__name__
    weights = torch.randn(found.shape)
    (found * weights).sum().backward()
    exact = nn.Conv2d(1, 6, (3, 2), stride, padding, dilation, bias=bias).double()
    exact.load_state_dict(layer.state_dict())
    double = images.detach().double().requires_grad_(image_grad)
    with CpuImages():
        plain = exact(double)
    assert "_Convolution" not in type(plain.grad_fn).__name__  # float64 is left to torch
    (plain * weights).sum().backward()
    pairs = [(mine.grad, own.grad) for mine, own in zip(layer.parameters(), exact.parameters(), strict=True)]
    if image_grad:
        pairs.append((images.grad, double.grad))
    for mine, own in pairs:
        assert mine is not None
        assert own is not None
        torch.testing.assert_close(mine.double(), own, rtol=1e-5, atol=1e-5)


def test_torch_keeps_what_is_not_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    images, layer = torch.randn(4, 1, 6, 6), nn.Conv2d(1, 2, 3)
    with CpuImages():
        _, places = F.max_pool2d(images, 2, return_indices=True)
        assert places.dtype == torch.int64
        turned = torch.randn(2, 3, 6, 6).to(memory_format=torch.channels_last).requires_grad_()
        assert "_MaxPool" not in type(F.max_pool2d(turned, 2).grad_fn).__name__
        each = torch.func.vmap(lambda one: F.max_pool2d(one, 2))(images)
        assert torch.equal(each, F.max_pool2d(images, 2))
        assert "_Convolution" not in type(layer(images).detach().grad_fn).__name__
        assert "_Convolution" not in type(nn.Conv2d(2, 2, 3)(torch.randn(2, 2, 5, 5)).grad_fn).__name__
    monkeypatch.setattr(cpu_images, "MOST_PATCHES", 1)
    with CpuImages():
        layer(images).sum().backward()
    wanted = torch.autograd.grad(layer(images).sum(), list(layer.parameters()))
    for param, grad in zip(layer.parameters(), wanted, strict=True):
        torch.testing.assert_close(param.grad, grad)


def test_only_models_with_images_get_it() -> None:
    def loss(batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        return batch[0].sum()

    assert with_cpu_images(loss, nn.Linear(2, 2)) is loss
    assert with_cpu_images(loss, nn.Sequential(nn.Conv2d(1, 1, 1))) is not loss
