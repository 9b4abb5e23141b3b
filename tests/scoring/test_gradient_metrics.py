"""The metrics of clients, compared with float64 on each block's gradient as one vector."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from support.sampling import examples

from fedtlu_fast import InputError, ParameterLayout, aggregate
from fedtlu_fast.scoring import layer_stats
from fedtlu_fast.scoring.gradient_metrics import measure_gradients, needs_held_out

# Blocks of one element, of one layer, and of several layers of several sizes.
LAYOUT = ParameterLayout.from_shapes(
    {
        "gain.weight": (),
        "embedding.weight": (4, 3),
        **{
            f"h.{at}.{name}": shape for at in range(2) for name, shape in (("weight", (3, 2)), ("bias", (7,)))
        },
        "head.weight": (5,),
    }
)
BLOCKS = {block.name: at for at, block in enumerate(LAYOUT.blocks)}
METRICS = ("gradnorm", "rgn", "snr")


def test_the_layout_has_the_places_that_the_tests_expect():
    assert list(BLOCKS) == ["gain", "embedding", "h.0", "h.1", "head"]
    assert LAYOUT.block_sizes() == [1, 12, 13, 13, 5]


def measured(metric, gradients, weights):
    gradients = torch.from_numpy(np.atleast_2d(np.asarray(gradients, np.float32)))
    stats = aggregate(gradients, [1.0] * len(gradients), LAYOUT, client_stats=True).client_stats
    given = layer_stats(torch.from_numpy(np.asarray(weights, np.float32)), LAYOUT)
    found = measure_gradients(metric, LAYOUT, stats, given)
    assert found.dtype == np.float64
    assert found.shape == (len(gradients), len(LAYOUT.blocks))
    return found


def oracle(metric, gradients, weights):
    rows = []
    for gradient in np.atleast_2d(np.asarray(gradients, np.float32)):
        row = []
        for block in range(len(LAYOUT.blocks)):
            runs = LAYOUT.runs([block])
            g, w = (
                np.concatenate([np.asarray(vector, np.float32)[run] for run in runs]).astype(np.float64)
                for vector in (gradient, weights)
            )
            if not np.isfinite(g).all():
                row.append(np.nan)
                continue
            value, divisor = {
                "gradnorm": (np.linalg.norm(g), 1.0),
                "rgn": (np.linalg.norm(g), np.linalg.norm(w)),
                "snr": (g.mean() ** 2, 0.0 if (g == g[0]).all() else g.var()),
            }[metric]
            row.append(value / divisor if divisor > 0 else 0.0)
        rows.append(row)
    return np.array(rows)


NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.1, 1.0, -3.0]),
    st.floats(-1e6, 1e6, width=32),
    st.sampled_from([float("nan"), float("inf"), -float("inf")]),
)


@pytest.mark.parametrize("metric", METRICS)
@examples(60)
@given(
    gradients=hnp.arrays(np.float32, (2, LAYOUT.size), elements=NUMBERS),
    weights=hnp.arrays(np.float32, LAYOUT.size, elements=st.floats(-10, 10, width=32)),
)
def test_any_gradient(metric, gradients, weights):
    found, expected = measured(metric, gradients, weights), oracle(metric, gradients, weights)
    # The mean of numbers that cancel has only the digits that are left.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_random_gradients_of_every_size(metric, generator):
    weights = torch.randn(LAYOUT.size, generator=generator).numpy()
    for scale in (1e-30, 1e-3, 1.0, 1e10):
        mean = torch.randn(1, generator=generator)
        gradients = ((torch.randn(5, LAYOUT.size, generator=generator) + mean) * scale).numpy()
        np.testing.assert_allclose(
            measured(metric, gradients, weights), oracle(metric, gradients, weights), rtol=1e-9
        )


@pytest.mark.parametrize("metric", METRICS)
def test_a_clients_values_do_not_depend_on_other_clients(metric, generator):
    weights = torch.randn(LAYOUT.size, generator=generator).numpy()
    gradients = torch.randn(4, LAYOUT.size, generator=generator).numpy()
    together = measured(metric, gradients, weights)
    for row, gradient in zip(together, gradients, strict=True):
        assert measured(metric, gradient, weights)[0].tolist() == row.tolist()


def test_a_factor_of_gradient_or_weights_scales_the_metrics(generator):
    weights = torch.randn(LAYOUT.size, generator=generator).numpy()
    gradients = torch.randn(3, LAYOUT.size, generator=generator).numpy()
    for metric, of_gradient, of_weights in (("gradnorm", 8, 1), ("rgn", 8, 1 / 8), ("snr", 1, 1)):
        own = measured(metric, gradients, weights)
        np.testing.assert_allclose(measured(metric, -8 * gradients, weights), of_gradient * own, rtol=1e-12)
        np.testing.assert_allclose(measured(metric, gradients, -8 * weights), of_weights * own, rtol=1e-12)
        assert (own[:, 1:] > 0).all()


@pytest.mark.parametrize("constant", [0.0, 0.1, -1 / 3, 1e-30, 3e38])
def test_a_constant_block_has_no_signal(constant):
    """Holds for a block of several layers too, whose common mean may differ from theirs by rounding."""
    found = measured("snr", np.full(LAYOUT.size, constant), np.ones(LAYOUT.size))
    assert found.tolist() == [[0.0] * len(BLOCKS)]


def test_a_block_of_one_element_has_no_spread_and_weights_of_zero_no_relative_norm():
    gradient, weights = np.linspace(1, 2, LAYOUT.size), np.ones(LAYOUT.size)
    weights[LAYOUT.runs([BLOCKS["h.1"]])[0]] = 0
    assert measured("snr", gradient, weights)[0, BLOCKS["gain"]] == 0
    found = measured("rgn", gradient, weights)[0]
    assert found[BLOCKS["h.1"]] == 0
    assert (np.delete(found, BLOCKS["h.1"]) > 0).all()


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_nan_in_their_block_only(metric, bad):
    gradient = np.linspace(1, 2, LAYOUT.size)
    gradient[LAYOUT.runs([BLOCKS["h.0"]])[0].stop - 1] = bad
    for weights in (np.ones(LAYOUT.size), np.zeros(LAYOUT.size)):
        found = measured(metric, [gradient, np.ones(LAYOUT.size)], weights)
        assert np.isnan(found[0, BLOCKS["h.0"]])
        assert np.isfinite(np.delete(found, BLOCKS["h.0"], axis=1)).all()
        assert np.isfinite(found[1]).all()


class Losses:
    """Losses that depend on single blocks."""

    def loss(self, blocks):
        return 3.0 - sum((0.5, -0.25, np.nan, 0.0, np.inf)[block] for block in blocks)


def test_the_benefit_is_the_fall_of_the_loss_by_each_block_alone():
    stats = layer_stats(torch.ones(LAYOUT.size), LAYOUT)
    found = measure_gradients("benefit", LAYOUT, stats.as_row(), stats, Losses())
    np.testing.assert_array_equal(found, [[0.5, -0.25, np.nan, 0.0, np.inf]])


def test_the_benefit_needs_samples():
    stats = layer_stats(torch.ones(LAYOUT.size), LAYOUT)
    with pytest.raises(InputError, match="after training, and samples that it keeps back"):
        measure_gradients("benefit", LAYOUT, stats.as_row(), stats)
    assert needs_held_out(("gradnorm", "benefit"))
    assert not needs_held_out(METRICS)
