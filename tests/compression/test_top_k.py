"""Tests that clients send the largest numbers of their changes, and the length of such messages."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.senders import ALL, LAYOUT, Sender, drawn, places_of

from fedtlu_fast import InputError
from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.compression import TopK
from fedtlu_fast.compression.coding import count_kept, position_bits
from fedtlu_fast.compression.top_k import largest

SIZES = [layer.numel for layer in LAYOUT.layers]


def test_the_largest_numbers_arrive_as_they_are() -> None:
    change, sender = drawn(1), Sender(TopK(0.1, error_feedback=False))
    arrived = sender.send(change)
    count = round(0.1 * LAYOUT.size)
    order = np.argsort(-change.abs().numpy())
    assert set(arrived.nonzero().flatten().tolist()) == set(order[:count].tolist())
    assert torch.equal(arrived[order[:count]], change[order[:count]])
    assert not sender.memory, "without error feedback nothing is kept"


def test_by_layer_each_layer_sends_its_share() -> None:
    arrived = Sender(TopK(0.2, by_layer=True)).send(drawn(2))
    kept = [int((own != 0).sum()) for own in arrived.split(SIZES)]
    assert kept == [count_kept(0.2, size) for size in SIZES]
    assert kept[2] == 0
    assert kept[3] == 1, "a layer with one number sends it"


@given(
    st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=40),
    st.floats(0.01, 1),
)
def test_no_more_than_the_share_of_energy_is_lost(numbers: list[float], keep: float) -> None:
    values = torch.tensor(numbers)
    count = count_kept(keep, len(values))
    lost = (values - largest(values, count)).double().square().sum()
    assert lost <= (1 - count / len(values)) * values.double().square().sum() * (1 + 1e-9)


@pytest.mark.parametrize("keep", [0.01, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("by_layer", [False, True])
@pytest.mark.parametrize("sent", [ALL, (1,), (2,), (0, 3), ()])
def test_the_counted_bytes_are_those_of_packed_bits(keep: float, by_layer: bool, sent: Blocks) -> None:
    sender = Sender(TopK(keep, by_layer=by_layer))
    arrived, mask = sender.send(drawn(3), sent), places_of(sent)
    pieces = list(arrived.split(SIZES)) if by_layer else [arrived[mask]]
    owned = list(mask.split(SIZES)) if by_layer else [mask[mask]]
    bits: list[np.ndarray] = []
    for piece, own in zip(pieces, owned, strict=True):
        values = piece[own].numpy()
        places = np.flatnonzero(values)
        positions = [as_bits(place, (len(values) - 1).bit_length()) for place in places]
        if len(places) == len(values):
            positions = []
        elif sum(map(len, positions)) > len(values):
            positions = [(values != 0).astype(np.uint8)]
        bits += [np.unpackbits(values[places].view(np.uint8)), *positions]
    packed = np.packbits(np.concatenate([np.empty(0, np.uint8), *bits]))
    assert sender.bytes(sent) == len(packed)


def as_bits(number: int, width: int) -> np.ndarray:
    return np.array([number >> place & 1 for place in range(width)], np.uint8)


def test_positions_take_the_shorter_coding() -> None:
    assert position_bits(3, 1000) == 3 * 10
    assert position_bits(300, 1000) == 1000
    assert (position_bits(0, 0), position_bits(1, 1), position_bits(9, 9)) == (0, 0, 0)


@pytest.mark.parametrize("keep", [0.0, 1.5, -1])
def test_a_share_is_above_0_and_at_most_1(keep: float) -> None:
    with pytest.raises(InputError, match="keep"):
        TopK(keep)
