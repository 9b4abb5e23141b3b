"""The rule by which the name of an entry says its part."""

import pytest

from fedtlu_fast import InputError
from fedtlu_fast.data.splits import announce, divide, parse

NAMES = {
    "train": "train Training TRAIN train_0 train2017 trainA TrainSet train-00000-of-00003.parquet train_val "
    "en_ewt-ud-train-a.conllu.gz wiki.train.tokens train.en train_en.csv 1-train.txt trainval",
    "test": "test Testing test_0 testB eval evaluation en.test.tsv.gz",
    "validation": "val VALID validation dev.csv x-dev.conllu val2017",
    None: "latest contest.txt trainer protest device value.csv a attestation strain evaluate テスト.csv . 42",
}


@pytest.mark.parametrize(
    ("name", "part"), [(own, part) for part, names in NAMES.items() for own in names.split()]
)
def test_a_word_of_the_name_says_the_part(name, part):
    assert parse(name).part == part


def test_other_words_and_pieces_are_distinguished():
    assert parse("en_ewt-ud-train-a.conllu").rest == ("en", "ewt", "ud")
    assert parse("train-00001-of-00003").pieces == ("00001", "00003")
    assert parse("train-00001-of-00003").rest == ()
    assert parse("a.train.tsv").rest == ("a",), "a letter before the part is a name"


@pytest.mark.parametrize(
    ("names", "free", "train", "test", "validation", "others"),
    [
        ("train.csv test.csv dev.csv", False, "train.csv", "test.csv", "dev.csv", ""),
        ("train val Test eval", True, "train", "Test", "val eval", ""),
        ("train eval", True, "train", "eval", "", ""),
        ("en.tsv de.tsv", False, "en.tsv de.tsv", "", "", ""),
        ("en.train.tsv en.test.tsv de.tsv", False, "en.train.tsv de.tsv", "en.test.tsv", "", ""),
        ("en.train.tsv en.test.tsv en.tsv", False, "en.train.tsv", "en.test.tsv", "", "en.tsv"),
        ("train test extra", True, "train", "test", "", "extra"),
        ("train-a train-b test", True, "train-a train-b", "test", "", ""),
        ("news.csv news-test.csv", False, "news.csv", "news-test.csv", "", ""),
        ("driving_test.txt train_journey.txt", True, "driving_test.txt train_journey.txt", "", "", ""),
        ("wiki.train.tokens wiki.test.tokens", True, "wiki.train.tokens", "wiki.test.tokens", "", ""),
        ("photo_train photo_test", True, "photo_train", "photo_test", "", ""),
        ("train.en train.de", True, "train.en train.de", "", "", ""),
        ("wiki.txt wiki_test.txt drive_test.txt", True, "wiki.txt drive_test.txt", "wiki_test.txt", "", ""),
        ("notes.md notes-dev.md", True, "notes.md notes-dev.md", "", "", ""),
    ],
)
def test_entries_are_divided(names, free, train, test, validation, others):
    found = divide(names.split(), "here", free=free)
    expected = tuple(tuple(part.split()) for part in (train, test, validation, others))
    assert (found.train, found.test, found.validation, found.others) == expected


@pytest.mark.parametrize(
    ("names", "free"),
    [
        ("train.csv train.tsv", False),
        ("train Training", True),
        ("x-train.conllu x-train.conllu.gz", False),
        ("train.txt train.txt.gz", True),
        ("train test Testing", True),
        ("train trainval", True),
    ],
)
def test_a_duplicate_part_is_refused(names, free):
    with pytest.raises(InputError, match=r"part once; .* both claim to be it"):
        divide(names.split(), "here", free=free)


def test_only_the_first_of_many_entries_are_recorded_with_their_number():
    origin = announce("texts", 7, ["test.csv"], ["dev.csv"], [f"{index}.csv" for index in range(1000)])
    found = origin.facts()
    assert found["train"]["entries"] == 1000
    assert found["train"]["names"] == [f"{index}.csv" for index in range(100)]
    assert found["test"] == {"entries": 1, "names": ["test.csv"], "samples": 7}
    assert found["not_read"] == {"entries": 1, "names": ["dev.csv"]}
