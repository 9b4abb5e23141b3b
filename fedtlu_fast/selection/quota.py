"""Computes how many blocks of each group are kept."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import ceil

from fedtlu_fast.errors import InputError
from fedtlu_fast.layout import ParameterLayout

Keep = int | float | Mapping[str, int | float]


def quotas(layout: ParameterLayout, keep: Keep) -> tuple[int, ...]:
    """Returns the number of blocks that are kept in each group of the layout.

    Args:
        layout: the layout, which holds the groups.
        keep: a whole number of blocks (2), a fraction of the group (0.5, rounded up; 1.0 is all of it), or a
            mapping from every group's name to one of these. A whole number that exceeds the size of a group
            keeps that whole group, if another group is large enough for the number.

    Raises:
        InputError: The number exceeds every group, or the layout has no group of this name.
    """
    sizes = {group.name: len(group.blocks) for group in layout.groups}
    if not sizes:
        raise InputError(
            "selection.granularity",
            layout.granularity,
            "a granularity at which the model has like blocks",
            f"Use {' or '.join(one for one in ('module', 'tensor') if one != layout.granularity)}, or the "
            "selector full.",
        )
    if not isinstance(keep, Mapping):
        largest = max(sizes.values())
        if isinstance(keep, int) and keep > largest:
            raise InputError(
                "selection.keep", keep, f"at most {largest}, the largest size of a group: {_listed(sizes)}"
            )
        return tuple(min(_number("selection.keep", keep, size), size) for size in sizes.values())
    for name in keep:
        if name not in sizes:
            raise InputError("selection.keep", name, f"the name of a group: {_listed(sizes)}")
    missing = [name for name in sizes if name not in keep]
    if missing:
        raise InputError("selection.keep", dict(keep), f"a number for group {missing[0]} too")
    chosen = []
    for name, size in sizes.items():
        number = _number(f"selection.keep[{name}]", keep[name], size)
        if number > size:
            raise InputError(
                f"selection.keep[{name}]", keep[name], f"at most {size}, the blocks of that group"
            )
        chosen.append(number)
    return tuple(chosen)


def _number(field: str, keep: int | float, size: int) -> int:
    if isinstance(keep, bool) or not isinstance(keep, int | float):
        raise InputError(field, keep, "a whole number of blocks or a fraction such as 0.5")
    if isinstance(keep, int):
        if keep < 1:
            raise InputError(field, keep, "1 or more")
        return keep
    if not 0 < keep <= 1:
        raise InputError(field, keep, "a fraction in (0, 1], or a whole number without a decimal point")
    # The decimal number counts as it is written: 0.07 of 100 is 7, although the float product is larger.
    return ceil(Fraction(str(keep)) * size)


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ({size})" for name, size in sizes.items())
