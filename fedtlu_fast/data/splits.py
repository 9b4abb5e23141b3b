"""Divides a source's entries (files, folders, splits) into parts by one rule on their names.

The parts are training, test and validation. A name's words are its runs of letters and its numbers:
``en_ewt-ud-train-a.conllu.gz`` has the words en, ewt, ud, train and a. A word of `PARTS` says to which part
the entry belongs; case does not matter, and forms such as ``TrainSet`` and ``test2017`` count too. If a name
has several such words, the last one decides. A word that only contains one of them, such as *latest* or
*trainer*, says nothing. The validation part is never read, because nothing is tuned on it.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fedtlu_fast.errors import InputError, listed

logger = logging.getLogger("fedtlu_fast.data")

Part = Literal["train", "test", "validation"]
PARTS: dict[str, Part] = {
    "train": "train",
    "training": "train",
    "trainval": "train",
    "test": "test",
    "testing": "test",
    "devtest": "test",
    "eval": "test",
    "evaluation": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
}
"""The words that name a part. An ``eval`` beside a ``test`` is for validation."""
SECOND_CHOICE = ("eval", "evaluation")
PACKED = (".gz", ".bz2", ".xz", ".zst")
FILLERS = ("of", "part", "shard", "chunk", "split", "set", "data")
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_a-zA-Z]+|\d+")
MOST_ENTRIES = 100
"""Largest number of a part's entries that are recorded by name."""
SUFFIXED = re.compile(r"(.+?)(?:set|data)")


@dataclass(frozen=True)
class PartName:
    """An entry's name, analysed.

    Attributes:
        part: the part that the name says; None: it says none.
        word: the word that says the part; empty if there is none.
        rest: the name's other words, such as a language; entries of different parts share them.
        pieces: numbers, and single letters after the part's word, which number the pieces of a part.
        name: the name without all of that, such as ``en`` of ``en.train.tsv``; empty if nothing is left.
    """

    part: Part | None
    word: str
    rest: tuple[str, ...]
    pieces: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Division:
    """The names of entries by part, in the order in which they were given.

    Attributes:
        train: names that say training; and names that say no part, unless an entry that says training has the
            same other words, or no other words at all.
        test: names that say test.
        validation: names that say validation.
        others: the remaining names, which say no part; each reader decides whether it reads them.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    validation: tuple[str, ...]
    others: tuple[str, ...]


def divide(names: Sequence[str], source: str, *, free: bool = False) -> Division:
    """Divides the entries of one folder, or the splits of one data set.

    Args:
        names: names of the entries; files with their endings.
        source: the source as settings write it, for messages.
        free: whether the names are free texts (of documents, labels, domains), in which a part's word may
            have its ordinary meaning. Then it counts only if the name has no other words; if another entry
            has the same other words and another part, or for a test no part (``wiki.txt`` beside
            ``wiki_test.txt``); or if it stands alone before the ending (``wiki.train.tokens``).

    Raises:
        InputError: two entries claim to be the same piece of the same part.
    """
    read = {name: parse(name) for name in names}
    counted = {name: own for name, own in read.items() if own.part and _counts(name, read, free)}
    first = any(own.part == "test" and own.word not in SECOND_CHOICE for own in counted.values())
    parts: dict[str, Part] = {}
    for name, own in counted.items():
        assert own.part is not None
        parts[name] = "validation" if first and own.word in SECOND_CHOICE else own.part
    _check_once({name: read[name] for name in parts}, parts, source, free)
    trained = {read[name].rest for name, part in parts.items() if part == "train"}
    claimed = [name for name in names if name not in parts]
    # Beside training data with the same name, or with no name, an entry may be the union of all parts.
    others = {name for name in claimed if trained and (() in trained or read[name].rest in trained)}
    return Division(
        train=tuple(name for name in names if parts.get(name, "train") == "train" and name not in others),
        test=tuple(name for name in names if parts.get(name) == "test"),
        validation=tuple(name for name in names if parts.get(name) == "validation"),
        others=tuple(name for name in names if name in others),
    )


def parse(name: str) -> PartName:
    """Analyses a name by the rule at the top of this module."""
    base = stem(name)
    found = list(WORD.finditer(base))
    words = [match[0].lower() for match in found]
    place = next((place for place in reversed(range(len(words))) if _part(words[place])), None)
    if place is None:
        return PartName(None, "", *_sorted_out(words, ()), base)
    first = place
    if _part(words[place]) == "validation" and place and _part(words[place - 1]) == "train":
        first = place - 1  # "train-val" is the usual name of the union of both
    rest, pieces = _sorted_out(words[:first], words[place + 1 :])
    before = base[: found[first].start()].strip(" -_.")
    named = [before, *(word for word in words[place + 1 :] if word in rest)] if rest else []
    return PartName(_part(words[first]), words[first], rest, pieces, " ".join(filter(None, named)))


def stem(name: str) -> str:
    """Returns a name without its ending and without the ending of compression; a part's word is no ending."""
    base = name
    for own in PACKED:
        base = base[: -len(own)] if base.lower().endswith(own) else base
    head, point, ending = base.rpartition(".")
    is_ending = (
        bool(head and point) and ending.isalnum() and not ending.isdigit() and not _part(ending.lower())
    )
    return head if is_ending else base


@dataclass(frozen=True)
class Origin:
    """The entries of a source (files, folders, splits) from which its samples were read.

    Attributes:
        what: the kind of the samples, such as "texts".
        train: entries with training samples; empty for a source without entries.
        test: number of test samples; None if the source has no test of its own.
        tests: entries with test samples.
        unread: entries that are not read.
    """

    what: str
    train: tuple[str, ...]
    test: int | None
    tests: tuple[str, ...]
    unread: tuple[str, ...]

    def __str__(self) -> str:
        kept = "a share of the training data, since there is none of its own (data.test_fraction)"
        text = f"test: {kept}"
        if self.test is not None:
            text = f"test: {self.test:,} {self.what} of {listed(self.tests)}"
        return f"{text}; {listed(self.unread)} not read" if self.unread else text

    def facts(self) -> dict[str, Any]:
        """Returns the same as a dictionary for JSON, with up to `MOST_ENTRIES` names of each part."""
        parts = {"train": self.train, "test": self.tests, "not_read": self.unread}
        found: dict[str, Any] = {
            name: {"entries": len(own), "names": list(own[:MOST_ENTRIES])} for name, own in parts.items()
        }
        found["test"]["samples"] = self.test
        return {"what": self.what, **found, "said": str(self)}


def announce(
    what: str,
    test: int | None,
    tests: Sequence[str] = (),
    unread: Sequence[str] = (),
    train: Sequence[str] = (),
) -> Origin:
    """Logs the entries that hold the test and the entries that are not read, and returns the `Origin`.

    The arguments are the attributes of `Origin`.
    """
    origin = Origin(what, tuple(train), test, tuple(tests) if test is not None else (), tuple(unread))
    logger.info("%s", origin)
    return origin


def _part(word: str) -> Part | None:
    suffixed = SUFFIXED.fullmatch(word)
    return PARTS.get(word) or (PARTS.get(suffixed[1]) if suffixed else None)


def _sorted_out(before: Sequence[str], after: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Divides the words before and after the part's word into words with a meaning and numbers of pieces."""
    first = [word for word in before if not word.isdigit()]
    last = [word for word in after if not word.isdigit() and len(word) > 1 and word not in FILLERS]
    pieces = [word for word in (*before, *after) if word.isdigit() or (len(word) == 1 and word in after)]
    return (*first, *last), tuple(pieces)


def _counts(name: str, read: dict[str, PartName], free: bool) -> bool:
    own = read[name]
    if not free or not own.rest or _part(stem(name).rpartition(".")[2].lower()):
        return True
    partners = {other.part for other in read.values() if other.rest == own.rest} - {own.part}
    return bool(partners - {None}) or (own.part == "test" and None in partners)


def _check_once(read: dict[str, PartName], parts: dict[str, Part], source: str, free: bool) -> None:
    met: dict[tuple[object, ...], str] = {}
    for name, own in read.items():
        if parts[name] == "validation":
            continue
        # Documents with different endings are different texts, such as train.en and train.de.
        ending = name.removeprefix(stem(name)).lower().removesuffix(".gz") if free else ""
        word = own.word if own.word in SECOND_CHOICE else ""
        before = met.setdefault((parts[name], word, own.rest, own.pieces, ending), name)
        if before != name:
            raise InputError(
                "data.source",
                source,
                f"the {parts[name]} part once; {before} and {name} both claim to be it",
                "Move one of them elsewhere.",
            )
