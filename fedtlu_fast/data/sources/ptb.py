"""Reads Penn Treebank as language models use it: Mikolov's three files with 10,000 different words."""

from __future__ import annotations

from pathlib import Path

from fedtlu_fast.data.documents import Document, Documents
from fedtlu_fast.data.prepared import joined, line_sections, lines_of
from fedtlu_fast.data.reading import read_text
from fedtlu_fast.data.sources.source import DocumentSource, PathSource, Read
from fedtlu_fast.data.splits import announce
from fedtlu_fast.errors import InputError
from fedtlu_fast.parts import part

TRAIN, VALID, TEST = "ptb.train.txt", "ptb.valid.txt", "ptb.test.txt"


@part
class PennTreebank(PathSource, DocumentSource):
    """Penn Treebank as language models use it; a document is a section of consecutive lines.

    Every line is one sentence with words between white space, in which rare words were replaced by ``<unk>``
    and numbers by ``N``. `LineTokenizer` reads the words as they are, with ``<eos>`` at the end of each line.
    ``ptb.valid.txt`` is not read, because nothing is tuned on it.

    Attributes:
        path: a directory with ``ptb.train.txt`` and ``ptb.test.txt``.
    """

    written = "DIR"
    own_vocabulary = 10_000
    path: str

    def documents(self) -> Read[Documents]:
        """See `DocumentSource`.

        Raises:
            InputError: a file is missing, empty or not UTF-8.
        """
        try:
            folder = Path(self.path).expanduser()
            missing = [name for name in (TRAIN, TEST) if not (folder / name).exists()]
        except (OSError, RuntimeError, ValueError) as error:
            raise InputError("data.source", str(self), f"a path that can be read; {error}") from None
        if missing:
            raise InputError(
                "data.source",
                str(self),
                f"a directory with {TRAIN}, {VALID} and {TEST}; {' and '.join(missing)} cannot be found",
            )
        train, test = (_lines(folder / name) for name in (TRAIN, TEST))
        unread = [VALID] if (folder / VALID).exists() else []
        origin = announce("lines", len(test), [TEST], unread, [TRAIN])
        tests = Documents([Document(TEST, joined(test))], prepared=True)
        return Read(Documents(line_sections(TRAIN, train), prepared=True), tests, origin)


def _lines(path: Path) -> list[str]:
    lines = lines_of(read_text(path))
    if not lines:
        raise InputError("data.source", str(path), "text; there is none in it")
    return lines
