"""Which entries are for training, and which for the test: one rule on names for the data of every source.

It holds for files, folders and splits alike. A name's words are its runs of letters and its numbers:
``en_ewt-ud-train-a.conllu.gz`` has the words en, ewt, ud, train and a. A part's word in it says which part
the entry belongs to (see `PARTS`; case does not matter, and ``TrainSet`` or ``test2017`` do too); the last
one decides where there are several. A word that only contains a part's word, such as *latest* or *trainer*,
says nothing. The validation part is never read: nothing is tuned on it.
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
"""A part's words. An ``eval`` beside a ``test`` is for validation."""
SECOND_CHOICE = ("eval", "evaluation")
PACKED = (".gz", ".bz2", ".xz", ".zst")
FILLERS = ("of", "part", "shard", "chunk", "split", "set", "data")
WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[^\W\d_a-zA-Z]+|\d+")
MOST_ENTRIES = 100
"""Entries of a part that are recorded by name."""
SUFFIXED = re.compile(r"(.+?)(?:set|data)")


@dataclass(frozen=True)
class PartName:
    """What a name says.

    Attributes:
        part: the part that it names, if any.
        word: the word that says so.
        rest: its other words, such as a language; entries of all parts share it.
        pieces: its numbers, and single letters after the part's word, which number the part's pieces.
        name: the name without all that, such as ``en`` of ``en.train.tsv``; empty where nothing is left.
    """

    part: Part | None
    word: str
    rest: tuple[str, ...]
    pieces: tuple[str, ...]
    name: str


@dataclass(frozen=True)
class Division:
    """Names by what they are for, in the order they were given.

    Attributes:
        train: names that say so; and of the others those that have no training part of their own beside
            them, unless there is one for all.
        test: names that say so.
        validation: names that say so.
        others: names that say nothing beside training data that is named; whether these are read is the
            reader's choice.
    """

    train: tuple[str, ...]
    test: tuple[str, ...]
    validation: tuple[str, ...]
    others: tuple[str, ...]


def divide(names: Sequence[str], source: str, *, free: bool = False) -> Division:
    """Divides the entries of one folder, or the splits of one data set.

    Args:
        names: of the entries; of files with their endings.
        source: the data set, for messages.
        free: people name these entries as they like (documents, labels, domains): a part's word beside
            other words counts only where another entry has the same other words and another part, for a test
            also no part (``wiki.txt`` beside ``wiki_test.txt``), or where it stands alone before the ending
            (``wiki.train.tokens``).

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
    # Beside a training part of its own, or one of no name at all, an entry may be the sum of all parts.
    others = {name for name in claimed if trained and (() in trained or read[name].rest in trained)}
    return Division(
        train=tuple(name for name in names if parts.get(name, "train") == "train" and name not in others),
        test=tuple(name for name in names if parts.get(name) == "test"),
        validation=tuple(name for name in names if parts.get(name) == "validation"),
        others=tuple(name for name in names if name in others),
    )


def parse(name: str) -> PartName:
    """Takes a name apart; see the top of this module."""
    base = stem(name)
    found = list(WORD.finditer(base))
    words = [match[0].lower() for match in found]
    place = next((place for place in reversed(range(len(words))) if _part(words[place])), None)
    if place is None:
        return PartName(None, "", *_sorted_out(words, ()), base)
    first = place
    if _part(words[place]) == "validation" and place and _part(words[place - 1]) == "train":
        first = place - 1  # train-val is what the union of both is called
    rest, pieces = _sorted_out(words[:first], words[place + 1 :])
    before = base[: found[first].start()].strip(" -_.")
    named = [before, *(word for word in words[place + 1 :] if word in rest)] if rest else []
    return PartName(_part(words[first]), words[first], rest, pieces, " ".join(filter(None, named)))


def stem(name: str) -> str:
    """A name without its ending, and without that of compression; a part's word is no ending."""
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
    """Which entries of a source (files, folders, splits) its samples are from.

    Attributes:
        what: the samples are, such as "texts".
        train: the entries to train on; a source that is one whole has none.
        test: how many samples are for the test; None where the source has no test of its own.
        tests: the entries that hold them.
        unread: the entries that are not read.
    """

    what: str
    train: tuple[str, ...]
    test: int | None
    tests: tuple[str, ...]
    unread: tuple[str, ...]

    def __str__(self) -> str:
        kept = "a share of the training data, since there is none of its own (data.test_fraction)"
        told = f"test: {kept}"
        if self.test is not None:
            told = f"test: {self.test:,} {self.what} of {listed(self.tests)}"
        return f"{told}; {listed(self.unread)} not read" if self.unread else told

    def facts(self) -> dict[str, Any]:
        """The same for JSON; of very many entries the first, and how many there are."""
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
    """Logs which entries the test is from, and which entries are not read; gives all that back.

    Args:
        what: see `Origin`.
        test: likewise.
        tests: likewise.
        unread: likewise.
        train: likewise.
    """
    origin = Origin(what, tuple(train), test, tuple(tests) if test is not None else (), tuple(unread))
    logger.info("%s", origin)
    return origin


def _part(word: str) -> Part | None:
    suffixed = SUFFIXED.fullmatch(word)
    return PARTS.get(word) or (PARTS.get(suffixed[1]) if suffixed else None)


def _sorted_out(before: Sequence[str], after: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Words that mean something, and words that number pieces; before and after the part's word."""
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
        # Documents with different endings are different texts: train.en and train.de.
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
