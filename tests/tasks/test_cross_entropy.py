"""Tests that the cross-entropy in place has torch's bits."""

import pytest
import torch
from torch.nn import functional as F

from fedtlu_fast.tasks import cross_entropy as module
from fedtlu_fast.tasks.cross_entropy import cross_entropy


@pytest.mark.parametrize(("count", "classes"), [(1, 1), (1, 9), (6, 3), (65, 2003), (130, 1025)])
@pytest.mark.parametrize("ignored", [0.0, 0.3, 1.0])
def test_bits_are_those_of_torch(
    count: int, classes: int, ignored: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NUMBERS", 40_000)
    logits = torch.randn(count, classes) * 5
    logits.view(-1)[:: classes + 1] = -1e30
    targets = torch.randint(classes, (count,))
    targets[torch.rand(count) < ignored] = -100
    outcomes = []
    for function in (F.cross_entropy, cross_entropy):
        leaf = logits.clone().requires_grad_()
        loss = function(leaf * 1.5, targets)
        (loss * 0.7).backward()
        outcomes.append((loss.detach(), leaf.grad))
    torch.testing.assert_close(*outcomes, rtol=0, atol=0, equal_nan=True)


def test_a_second_backward_pass_raises_and_does_not_lie() -> None:
    leaf, targets = torch.randn(4, 5, requires_grad=True), torch.randint(5, (4,))
    loss = cross_entropy(leaf, targets)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_what_is_not_plain_is_left_to_torch() -> None:
    logits, targets = torch.randn(3, 4, 5), torch.randint(5, (3, 4))
    grads = torch.func.vmap(torch.func.grad(cross_entropy))(logits, targets)
    for own, mine, wanted in zip(logits, targets, grads, strict=True):
        leaf = own.clone().requires_grad_()
        F.cross_entropy(leaf, mine).backward()
        torch.testing.assert_close(wanted, leaf.grad)
    double = logits[0].double().requires_grad_()
    assert torch.equal(cross_entropy(double, targets[0]), F.cross_entropy(double, targets[0]))
    assert cross_entropy(torch.empty(0, 5, requires_grad=True), targets[0, :0]).isnan()
