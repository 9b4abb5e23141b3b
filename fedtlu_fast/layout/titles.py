"""Names groups of like blocks after their blocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence


def titles_of(groups: Sequence[Sequence[str]]) -> list[str]:
    """Returns a title for each group, all different, from the dotted names of the group's blocks."""
    return _unique([_pattern(names) for names in groups])


def _pattern(names: Sequence[str]) -> str:
    """Names like blocks: ``h.0``, ``h.1`` -> ``h.*``; ``lstm[1]``, ``lstm[2]`` -> ``lstm[*]``."""
    parts = [name.split(".") for name in names]
    if len({len(path) for path in parts}) > 1:
        return f"{names[0]} and like"
    return ".".join(_common(column) for column in zip(*parts, strict=True))


def _common(column: Sequence[str]) -> str:
    if len(set(column)) == 1:
        return column[0]
    stems = {part.partition("[")[0] for part in column}
    return f"{stems.pop()}[*]" if len(stems) == 1 else "*"


def _unique(titles: Sequence[str]) -> list[str]:
    """Numbers the titles that occur more than once: ``h.*``, ``h.*#2``."""
    seen: defaultdict[str, int] = defaultdict(int)
    unique = []
    for title in titles:
        seen[title] += 1
        unique.append(title if seen[title] == 1 else f"{title}#{seen[title]}")
    return unique
