"""Makes CoNLL-U files for tests."""

import random
from collections.abc import Sequence
from pathlib import Path

LEXICON = {
    "NOUN": ["dog", "house", "tree", "word"],
    "VERB": ["sees", "runs", "falls"],
    "DET": ["the", "a"],
    "ADJ": ["old", "green", "small"],
    "PUNCT": ["."],
}
ORDER = ["DET", "ADJ", "NOUN", "VERB", "DET", "NOUN", "PUNCT"]
GENRES = ["weblog", "email", "reviews"]


def conllu(sentences: Sequence[Sequence[tuple[str, str]]], document: str | None = None) -> str:
    """Returns sentences of (word, tag) pairs as CoNLL-U text."""
    lines = [f"# newdoc id = {document}"] if document else []
    for sentence in sentences:
        lines.append(f"# text = {' '.join(word for word, _ in sentence)}")
        lines += [
            f"{place}\t{word}\t{word}\t{tag}\t_\t_\t0\troot\t_\t_"
            for place, (word, tag) in enumerate(sentence, start=1)
        ]
        lines.append("")
    return "\n".join(lines) + "\n"


def sentence(draws: random.Random) -> list[tuple[str, str]]:
    """Draws a sentence of three to seven words, whose order helps to guess the tags."""
    start = draws.randrange(len(ORDER) - 2)
    kinds = ORDER[start : draws.randint(start + 3, len(ORDER))]
    return [(draws.choice(LEXICON[kind]), kind) for kind in kinds]


def write_treebank(folder: Path, documents: int = 12, each: int = 15, seed: int = 3) -> Path:
    """Writes a directory with a training file and a test file."""
    folder.mkdir(exist_ok=True)
    draws = random.Random(seed)
    for name, count in (("train", each), ("test", 2)):
        texts = [
            conllu([sentence(draws) for _ in range(count)], f"{GENRES[number % 3]}-{name}-{number:02}")
            for number in range(documents)
        ]
        (folder / f"tiny-ud-{name}.conllu").write_text("".join(texts), encoding="utf-8")
    return folder
