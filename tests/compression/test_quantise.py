"""Tests of changes in a few bits: right on average, on their levels, and as long as counted."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.senders import ALL, LAYOUT, Sender, drawn, places_of

from fedtlu_fast import InputError
from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.compression import Quantise
from fedtlu_fast.compression.quantise import rounded

TIMES, BUCKET = 600, 16
BITS = pytest.mark.parametrize("bits", [8, 4, 2])
FLOATS = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


def buckets(vector: torch.Tensor) -> list[torch.Tensor]:
    """The buckets of the layers of a change."""
    layers = vector.split([layer.numel for layer in LAYOUT.layers])
    return [own for layer in layers if len(layer) for own in layer.split(BUCKET)]


@BITS
def test_the_change_arrives_on_average(bits: int) -> None:
    step, change = Quantise(bits, BUCKET), drawn(1)
    sender = Sender(step)
    arrived = torch.stack([sender.send(change) for _ in range(TIMES)]).double()
    widths = [torch.full_like(own, float(own.abs().max())) / step.levels for own in buckets(change)]
    allowed = torch.cat(widths).double() / (2 * TIMES**0.5)  # no draw between two levels varies more
    assert ((arrived.mean(dim=0) - change).abs() <= 5.5 * allowed + 1e-6).all()
    assert not sender.memory


@given(numbers=st.lists(FLOATS, max_size=30), bits=st.sampled_from([8, 4, 2]), draw=st.floats(0, 0.999))
def test_numbers_go_to_a_neighbouring_level(numbers: list[float], bits: int, draw: float) -> None:
    values, levels = torch.tensor(numbers), 2 ** (bits - 1) - 1
    found = rounded(values, levels, 7, torch.full_like(values, draw))
    assert found.shape == values.shape
    for own, given_values in zip(found.split(7), values.split(7), strict=True):
        if not len(own):
            continue
        scale = given_values.double().abs().max()
        assert ((own.double() - given_values).abs() <= scale / levels * (1 + 1e-5)).all()
        assert (own * given_values >= 0).all()
        assert (own.abs() <= scale).all()


@BITS
@pytest.mark.parametrize("sent", [ALL, (1,), (2,), (0, 3), ()])
def test_the_counted_bytes_are_those_of_packed_bits(bits: int, sent: Blocks) -> None:
    sender, change = Sender(Quantise(bits, BUCKET)), drawn(3)
    levels, mask = 2 ** (bits - 1) - 1, places_of(sent)
    arrived, packed, decoded = sender.send(change, sent), [np.empty(0, np.uint8)], []
    for own, original, here in zip(buckets(arrived), buckets(change), buckets(mask), strict=True):
        if not here.all():
            continue
        scale = original.abs().max()
        level = (own / scale * levels).round().to(torch.int64).numpy()
        codes = np.abs(level) << 1 | (level < 0)
        packed.append(np.unpackbits(np.array([scale], np.float32).view(np.uint8)))
        packed.append((codes[:, None] >> np.arange(bits) & 1).astype(np.uint8).ravel())
        assert codes.max(initial=0) < 2**bits
        decoded.append(torch.from_numpy(level).float() / levels * scale)
    assert sender.bytes(sent) == len(np.packbits(np.concatenate(packed)))
    torch.testing.assert_close(torch.cat([torch.empty(0), *decoded]), arrived[mask])


def test_a_change_of_zero_stays_zero() -> None:
    assert not Sender(Quantise(2)).send(torch.zeros(LAYOUT.size)).any()


@pytest.mark.parametrize("wrong", [3, 16, 0])
def test_numbers_have_8_4_or_2_bits(wrong: int) -> None:
    with pytest.raises(InputError, match="bits"):
        Quantise(wrong)  # type: ignore[arg-type]
