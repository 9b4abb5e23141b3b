"""Text from data sets that `datasets` loads: with or without a test split, prepared or not."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sources import read_parts

from fedtlu_fast import InputError
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.documents import SECTIONS, Document
from fedtlu_fast.data.prepared import UNKNOWN_SHARE, is_prepared, joined, line_sections, lines_of

datasets = pytest.importorskip("datasets")


def write_rows(folder, rows, name="train"):
    (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def test_a_folder_of_parquet_with_labels_is_one_document_a_label(folder):
    rows = {"text": ["one", "two", "three"], "label": [1, 0, 1]}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "train.parquet")
    assert read_parts(f"hf:{folder}").train.items == [Document("0", "two"), Document("1", "one\n\nthree")]


def test_a_folder_of_jsonl_without_labels_is_cut_into_sections(folder):
    write_rows(folder, [{"sentence": f"sentence number {index} " * 40, "id": index} for index in range(300)])
    documents = read_parts(f"hf:{folder}").train.items
    assert 40 <= len(documents) <= SECTIONS
    assert sum(document.text.count("sentence number") for document in documents) == 300 * 40


def test_a_folder_of_text_files(folder):
    (folder / "train.txt").write_text("a b c\nd e f\n", encoding="utf-8")
    assert " ".join(document.text for document in read_parts(f"hf:{folder}").train.items).split() == list(
        "abcdef"
    )


def test_the_only_column_of_strings_is_the_text(folder):
    write_rows(folder, [{"words": "a b", "n": 1}])
    assert [document.text for document in read_parts(f"hf:{folder}").train.items] == ["a b"]


def test_rows_without_text_are_left_out(folder):
    write_rows(folder, [{"text": "a"}, {"text": None}, {"text": "b"}])
    assert " ".join(document.text for document in read_parts(f"hf:{folder}").train.items).split() == [
        "a",
        "b",
    ]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"a": "x", "b": "y"}], "a column named text; it has a, b"),
        ([{"n": 1}], "a column named text; it has n"),
        ([{"text": ["a", "b"]}], r"text in column text; it holds \['a', 'b'\]"),
        ([{"text": 5}], "text in column text; it holds 5"),
        ([{"text": ""}, {"text": None}], "text in column text; there is none"),
    ],
    ids=["two columns", "numbers", "lists", "number", "empty"],
)
def test_a_data_set_without_text_is_refused(folder, rows, message):
    write_rows(folder, rows)
    with pytest.raises(InputError, match=f"data.source: got 'hf:.*{message}"):
        read_parts(f"hf:{folder}")


def test_a_data_set_without_a_train_split_or_without_anything_is_refused(folder):
    with pytest.raises(InputError, match="a data set that `datasets` can load"):
        read_parts(f"hf:{folder}")
    write_rows(folder, [{"text": "a"}], name="test")
    with pytest.raises(InputError, match="expected a split train; it has test"):
        read_parts(f"hf:{folder}")
    with pytest.raises(InputError, match=r"data.source: got 'hf:/no/such/folder'"):
        read_parts("hf:/no/such/folder")


# --- a test of its own, and text that was prepared -------------------------------------------------

TRAIN = [f"word{index % 40} <unk> N mr. said n't u.s." for index in range(1300)]
TEST = ["the <unk> of mr. N said it was n't u.s."] * 40


def write_parquet(folder, column="sentence", **splits):
    for name, rows in splits.items():
        datasets.Dataset.from_dict({column: rows}).to_parquet(folder / f"{name}.parquet")


def federation(source, **data):
    return load_federation(
        parse_config({"clients": 5, "cohort": 2, "data": {"source": source, "window": 8, **data}})
    )


def test_a_test_split_is_the_global_test_and_all_of_train_is_trained_on(folder):
    train = [f"a sentence, number {index}." for index in range(400)]
    write_parquet(folder, train=train, test=["held out!"] * 30, validation=["unread"] * 9)
    found = read_parts(f"hf:{folder}")
    assert not found.train.prepared
    assert "".join(own.text for own in found.train.items).count("number") == 400
    assert [own.text for own in found.test.items] == ["\n\n".join(["held out!"] * 30)]
    data = federation(f"hf:{folder}", vocabulary=5000)
    assert len(data.population.test[0]) == (30 * 3 - 1) // 8
    pool = data.population.pool[0]
    assert len(pool) == (400 * 6 - 1) // 8
    assert data.population.test[0].unique().tolist() == [0], "held, out and ! are in no training text"


def test_without_a_test_split_the_end_of_every_section_is_the_test(folder):
    write_parquet(folder, train=[f"a sentence, number {index}." for index in range(400)])
    found = read_parts(f"hf:{folder}")
    assert found.test is None
    data = federation(f"hf:{folder}", test_fraction=0.25)
    counts = len(data.population.pool[0]), len(data.population.test[0])
    halves = 2 * len(found.train.items)
    assert 2400 / 8 - halves <= sum(counts) <= 2400 / 8, "a half loses what does not fill its last sample"
    assert counts[1] == pytest.approx(sum(counts) / 4, abs=halves)


def test_penn_treebank_from_a_hub_is_penn_treebank_from_its_files(folder, tmp_path):
    files = tmp_path / "files"
    files.mkdir()
    (files / "ptb.train.txt").write_text("".join(f" {row} \n" for row in TRAIN), encoding="utf-8")
    (files / "ptb.test.txt").write_text("".join(f" {row} \n" for row in TEST), encoding="utf-8")
    write_parquet(folder, train=TRAIN, test=TEST, validation=["unread"])
    assert read_parts(f"hf:{folder}").train.prepared
    hub, ptb = (federation(source, vocabulary=10_000) for source in (f"hf:{folder}", f"ptb:{files}"))
    assert hub.population.fingerprint == ptb.population.fingerprint
    assert hub.outputs == ptb.outputs == 1 + 40 + 6, "<unk>, 40 numbered words, six others with <eos>"
    assert list(hub.attributes["source"].codes) == list(ptb.attributes["source"].codes)


def test_prepared_text_without_a_test_is_cut_between_lines(folder):
    write_parquet(folder, train=TRAIN)
    data = federation(f"hf:{folder}", test_fraction=0.5)
    for samples in (data.population.pool[0], data.population.test[0]):
        assert [len(samples[:, place].unique()) for place in range(9)] == [40, *[1] * 7, 40], "whole lines"


def test_prepared_text_with_labels_is_a_document_a_label(folder):
    rows = {"text": ["a <unk> \n", " b <unk>\nc", "", "d <unk>"], "label": [1, 0, 0, 1]}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "train.parquet")
    found = read_parts(f"hf:{folder}")
    assert found.train.items == [Document("0", "b <unk>\nc\n"), Document("1", "a <unk>\nd <unk>\n")]


def test_a_test_split_without_text_is_refused(folder):
    write_parquet(folder, train=["a"], test=["", " "])
    with pytest.raises(InputError, match=r"got 'hf:.*text in column sentence of split test; there is none"):
        read_parts(f"hf:{folder}")


def test_text_is_prepared_when_unknown_words_are_common_in_it():
    assert is_prepared(TRAIN)
    assert is_prepared(["<unk>"])
    assert not is_prepared(["a b", "(<unk>) x<unk>"])
    assert not is_prepared([])
    rare = int(1 / UNKNOWN_SHARE)
    assert is_prepared(["<unk>" + " word" * (rare - 1)])
    assert not is_prepared(["<unk>" + " word" * rare])


@given(st.lists(st.text("ab \n\t", max_size=12), max_size=90))
def test_sections_of_lines_hold_every_word_once_in_order(texts):
    lines = [line for text in texts for line in lines_of(text)]
    if lines:
        documents = line_sections("x", lines)
        assert len(documents) <= SECTIONS
        assert "".join(own.text for own in documents) == joined(lines)
    assert " ".join(lines).split() == " ".join(texts).split()
