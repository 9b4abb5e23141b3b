"""Finds repetitions in the shapes of a module's own parameters, as in the layers of one ``nn.LSTM``."""

from __future__ import annotations

from collections.abc import Sequence

Shape = tuple[int, ...]


def repetition(layers: list[int], shapes: Sequence[Shape]) -> list[list[int]]:
    """Cuts a module's own layers into the stretches that repeat at their end, and the layers before these.

    The period, of at least two tensors, is the one whose repetitions cover most layers, or the shortest of
    several: ``A B c c  B B c c  B B c c`` is cut into three stretches of four, two of them alike.
    """
    count, best_period, best_cover = len(layers), 1, 0
    matches = _prefix_matches([shapes[layer] for layer in reversed(layers)])
    for period in range(2, count // 2 + 1):
        cover = period + matches[period]
        cover -= cover % period
        if cover >= 2 * period and cover > best_cover:
            best_period, best_cover = period, cover
    head = count - best_cover
    starts = range(head, count, best_period)
    stretches = [layers[:head], *(layers[start : start + best_period] for start in starts)]
    return [stretch for stretch in stretches if stretch]


def _prefix_matches(sequence: Sequence[Shape]) -> list[int]:
    """Returns for every place the number of items from there on that equal the items from the start on.

    This is the Z algorithm, which takes linear time (Gusfield 1997, Algorithms on Strings, Trees and
    Sequences, 1.4): inside the last matching stretch ``[left, right)``, the counts at the start are valid
    again.
    """
    matches = [0] * len(sequence)
    left = right = 0
    for place in range(1, len(sequence)):
        length = min(right - place, matches[place - left]) if place < right else 0
        while place + length < len(sequence) and sequence[length] == sequence[place + length]:
            length += 1
        matches[place] = length
        if place + length > right:
            left, right = place, place + length
    return matches
