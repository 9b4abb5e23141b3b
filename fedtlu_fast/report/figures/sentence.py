"""The sentence above a picture."""

from __future__ import annotations

from textwrap import fill

from matplotlib.figure import Figure

from fedtlu_fast.report.figures.style import INK

SIZE = 10
"""The height of letters, in points."""


def write_above(figure: Figure, sentence: str) -> None:
    """Writes a sentence above a figure, in as many lines as it needs, and makes the figure higher by these.

    Args:
        figure: with a constrained layout.
        sentence: nothing is done for an empty one.
    """
    if not sentence:
        return
    # `parts.png` breaks lines that are longer than this.
    letters = int(0.8 * figure.get_figwidth() * 72 / (0.5 * SIZE))
    text = fill(sentence, letters, break_on_hyphens=False)
    figure.set_figheight(figure.get_figheight() + (text.count("\n") + 2) * 1.2 * SIZE / 72)
    figure.suptitle(text, x=0.01, horizontalalignment="left", fontsize=SIZE, color=INK)
