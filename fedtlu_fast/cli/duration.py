"""Times in words."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Returns a time such as ``12 ms``, ``3.4 s``, ``2 min 5 s`` or ``1 h 10 min``."""
    if seconds < 1:
        return f"{1e3 * seconds:.3g} ms"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{seconds:.3g} s"
    )
