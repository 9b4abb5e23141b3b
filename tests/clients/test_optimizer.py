"""The optimizers of local training, compared with torch's classes, on vectors and on rows that drop out."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.sampling import examples

from fedtlu_fast.clients.optimizer import AdamW, Sgd
from fedtlu_fast.config import TrainingConfig

OPTIONS = [
    {},
    {"momentum": 0.9},
    {"weight_decay": 0.05},
    {"momentum": 0.5, "weight_decay": 0.01, "lr": 0.03},
    {"optimizer": "adamw", "lr": 0.01},
    {"optimizer": "adamw", "lr": 0.01, "weight_decay": 0.3},
]


def torchs(params, config):
    if isinstance(config.optimizer, AdamW):
        return torch.optim.AdamW(params, lr=config.optimizer.lr, weight_decay=config.optimizer.weight_decay)
    return torch.optim.SGD(
        params,
        lr=config.optimizer.lr,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
    )


def by_torch(start, grads, config):
    """A vector after torch's own optimizer has taken these gradients."""
    param = torch.nn.Parameter(start.clone())
    optimizer = torchs([param], config)
    for grad in grads:
        param.grad = grad.clone()
        optimizer.step()
    return param.detach()


def ours(start, grads, config):
    params, optimizer = start.clone(), config.optimizer.start([])
    for grad in grads:
        optimizer.step_([params], [grad.clone()])
    return params


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_steps_are_torchs_bit_for_bit(generator, options, size):
    config = TrainingConfig(**options).local
    start = torch.randn(size, generator=generator)
    for steps in (1, 2, 9):
        grads = list(torch.randn(steps, size, generator=generator))
        after = ours(start, grads, config)
        assert torch.equal(after, by_torch(start, grads, config))
        assert not torch.equal(after, start)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_gradients_are_left_as_they_were(generator, options):
    optimizer = TrainingConfig(**options).optimizer.start([])
    params, grads = torch.randn(2, 50, generator=generator)
    given = grads.clone()
    for _ in range(3):
        optimizer.step_([params], [grads])
        assert torch.equal(grads, given)


@examples(60)
@given(
    st.sampled_from(OPTIONS),
    st.lists(st.integers(1, 6), min_size=1, max_size=5),
    st.integers(1, 40),
    st.integers(0, 2**30),
)
def test_rows_that_drop_out_equal_optimizers_of_their_own(options, steps, size, seed):
    """Results agree up to float32 rounding: torch's vector and scalar instructions round differently."""
    config, steps = TrainingConfig(**options).local, sorted(steps, reverse=True)
    draws = np.random.default_rng(seed)
    start = torch.from_numpy(draws.standard_normal((len(steps), size), dtype=np.float32))
    grads = torch.from_numpy(draws.standard_normal((steps[0], len(steps), size), dtype=np.float32))
    matrix, shared, optimizer = start.clone(), torch.empty(len(steps), size), config.optimizer.start([])
    for step in range(steps[0]):
        active = sum(own > step for own in steps)
        # All steps share one matrix of gradients: an optimizer must not keep a view of it.
        shared[:active] = grads[step, :active]
        optimizer.step_([matrix[:active]], [shared[:active]])
        shared.fill_(float("nan"))
    for row, own in enumerate(steps):
        expected = by_torch(start[row], list(grads[:own, row]), config)
        torch.testing.assert_close(matrix[row], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_new_optimizer_remembers_nothing(generator, options):
    config = TrainingConfig(**options).local
    start, grad = torch.randn(2, 20, generator=generator)
    first = ours(start, [grad] * 3, config)
    assert torch.equal(ours(start, [grad] * 3, config), first)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_nan_in_one_row_stays_there(generator, options):
    config = TrainingConfig(**options).local
    start = torch.randn(3, 20, generator=generator)
    grads = [torch.randn(3, 20, generator=generator) for _ in range(4)]
    expected = ours(start, grads, config)
    spoilt = [grad.clone() for grad in grads]
    spoilt[1][1] = float("nan")
    found = ours(start, spoilt, config)
    assert torch.equal(found[[0, 2]], expected[[0, 2]])
    assert not torch.isfinite(found[1]).any()


def test_values_that_require_a_gradient_are_stepped_all_the_same(generator):
    params = torch.randn(5, generator=generator).requires_grad_()
    before = params.detach().clone()
    Sgd(1.0).start([]).step_([params], [torch.ones(5)])
    torch.testing.assert_close(params.detach(), before - 1)
