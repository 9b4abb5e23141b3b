"""The lengths of compressed messages (ours).

Messages are bits without headers. Both sides know the layout, the blocks that are sent and the settings of
the step, so that none of these is sent. A message is padded to whole bytes once, at its end.
"""

from __future__ import annotations

from fedtlu_fast.clients.trainer import Blocks
from fedtlu_fast.layout import ParameterLayout
from fedtlu_fast.layout.parameter_layout import Layer

NUMBER_BITS = 32
"""Bits of a float32."""


def whole_bytes(bits: int) -> int:
    """Returns the number of bytes that hold so many bits."""
    return -(-bits // 8)


def sent_layers(layout: ParameterLayout, blocks: Blocks) -> list[Layer]:
    """Returns the layers of some blocks, in the order of the flat vector."""
    return [layout.layers[place] for place in layout.layer_mask(blocks).nonzero().flatten().tolist()]


def sent_sizes(layout: ParameterLayout, blocks: Blocks) -> list[int]:
    """Returns the numbers of parameters of the layers of some blocks, in the order of the flat vector."""
    return [layer.numel for layer in sent_layers(layout, blocks)]


def count_kept(keep: float, size: int) -> int:
    """Returns how many of `size` numbers are kept: the share `keep`, rounded, and one if that is none."""
    return min(size, max(1, round(keep * size)))


def position_bits(count: int, size: int) -> int:
    """Returns the bits that say which `count` of `size` numbers are sent.

    Each position takes ceil(log2 size) bits. A map with one bit for each of the numbers is sent instead if it
    is shorter, and nothing if no number or every number is sent; both sides know which of these it is.
    """
    if count in (0, size):
        return 0
    return min(size, count * (size - 1).bit_length())
