"""Penn Treebank as language models know it: Mikolov's three files of 10,000 words."""

from __future__ import annotations

from pathlib import Path

from fedtlu_fast.data.documents import Document, Texts
from fedtlu_fast.data.prepared import joined, line_sections, lines_of
from fedtlu_fast.data.reading import read_text
from fedtlu_fast.data.splits import announce
from fedtlu_fast.errors import InputError

TRAIN, VALID, TEST = "ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"


def load_ptb(location: str) -> Texts:
    """The training text in sections of lines that follow each other, and the test text.

    Every line is one sentence, its words between white space, rare ones already ``<unk>``, numbers ``N``.
    `LineTokenizer` reads them as they are, with ``<eos>`` at the ends of lines. ``ptb.valid.txt`` is not
    read: nothing is tuned on it.

    Args:
        location: a directory with ``ptb.train.txt`` and ``ptb.test.txt``.

    Raises:
        InputError: a file is missing, empty or not UTF-8.
    """
    try:
        folder = Path(location).expanduser()
        missing = [name for name in (TRAIN, TEST) if not (folder / name).exists()]
    except (OSError, RuntimeError) as error:
        raise InputError("data.source", f"ptb:{location}", f"a path that can be read; {error}") from None
    if missing:
        raise InputError(
            "data.source",
            f"ptb:{location}",
            f"a directory with {TRAIN}, {VALID} and {TEST}; {' and '.join(missing)} cannot be found",
        )
    train, test = (_lines(folder / name) for name in (TRAIN, TEST))
    unread = [VALID] if (folder / VALID).exists() else []
    origin = announce("lines", len(test), [TEST], unread, [TRAIN])
    return Texts(line_sections(TRAIN, train), [Document(TEST, joined(test))], origin)


def _lines(path: Path) -> list[str]:
    lines = lines_of(read_text(path))
    if not lines:
        raise InputError("data.source", str(path), "text; there is none in it")
    return lines
