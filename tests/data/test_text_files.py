"""Labelled texts in files by domain."""

import csv
import gzip
import json

import pytest
from support.sources import read_texts

from fedtlu_fast import InputError
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.config.settings import parse_config

ROWS = [("sport", "The ball is round."), ("food", 'Bread, "butter" and salt'), ("sport", "A\u00e4 run")]


def tsv(rows=ROWS):
    return "label\ttext\n" + "".join(f"{label}\t{text}\n" for label, text in rows)


def load(path):
    return read_texts(f"texts:{path}")


def test_files_are_domains(tmp_path):
    (tmp_path / "en.tsv").write_text(tsv(), encoding="utf-8")
    (tmp_path / "de.jsonl").write_text(
        "\n".join(json.dumps({"news_category": label, "news_body": text}) for label, text in ROWS[:2])
        + "\n\n",
        encoding="utf-8",
    )
    (tmp_path / "fr.csv").write_bytes(
        b'\xef\xbb\xbftitle,text,label\r\n"Un, deux","trois\nquatre",food\r\n,cinq,art\r\n'
    )
    (tmp_path / ".hidden.tsv").write_text("nothing")
    (tmp_path / "README.md").write_text("nothing")
    train, test = load(tmp_path)
    assert test is None
    assert train.texts == ["The ball is round.", 'Bread, "butter" and salt', *(text for _, text in ROWS),
                           "Un, deux trois\nquatre", "cinq"]  # fmt: skip
    assert train.attributes["label"].names == ("art", "food", "sport")
    assert train.attributes["label"].codes.tolist() == [2, 1, 2, 1, 2, 1, 0]
    assert train.attributes["domain"].names == ("de", "en", "fr")
    assert train.attributes["domain"].codes.tolist() == [0, 0, 1, 1, 1, 2, 2]


def test_test_files_are_read_and_validation_files_are_not(tmp_path):
    (tmp_path / "en.train.tsv").write_text(tsv())
    (tmp_path / "en.test.tsv").write_text(tsv([("art", "Oil on wood")]))
    (tmp_path / "de.test.tsv").write_text(tsv([("food", "Brot")]))
    (tmp_path / "en.dev.tsv").write_text("broken")
    train, test = load(tmp_path)
    assert len(train.texts) == 3
    assert test.texts == ["Brot", "Oil on wood"]
    assert train.attributes["label"].names == test.attributes["label"].names == ("art", "food", "sport")
    assert test.attributes["domain"].codes.tolist() == [0, 1]


def said(caplog, path):
    """Returns the loaded texts and the logged messages."""
    caplog.clear()
    with caplog.at_level("INFO", "fedtlu_fast.data"):
        return load(path), caplog.messages


def test_names_say_the_part(tmp_path, caplog):
    for name, text in {"train.csv": "a b", "Test_0.csv": "c", "test_1.tsv.gz": "d", "DEV.jsonl": "?"}.items():
        content = tsv([("x", text)]) if ".tsv" in name else f"label,text\nx,{text}\n"
        (tmp_path / name).write_bytes(gzip.compress(content.encode()) if ".gz" in name else content.encode())
    (train, test), messages = said(caplog, tmp_path)
    assert (train.texts, test.texts, list(train.attributes)) == (["a b"], ["c", "d"], ["label"])
    assert messages == ["test: 2 texts of Test_0.csv, test_1.tsv.gz; DEV.jsonl not read"]


def test_folders_say_the_part_or_the_domain(tmp_path, caplog):
    files = ("train/en.tsv", "train/de.tsv", "Testing/en.tsv", "val/en.tsv")
    for name in files:
        (tmp_path / "a" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a" / name).write_text(tsv([("x", name)]))
    (train, test), messages = said(caplog, tmp_path / "a")
    assert (sorted(train.texts), test.texts) == (["train/de.tsv", "train/en.tsv"], ["Testing/en.tsv"])
    assert train.attributes["domain"].names == ("de", "en")
    assert messages == ["test: 1 texts of Testing/en.tsv; val not read"]
    for name in ("en/train.tsv", "en/test.tsv", "de/train.tsv", "de/valid.tsv"):
        (tmp_path / "b" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / name).write_text(tsv([("x", name)]))
    (train, test), messages = said(caplog, tmp_path / "b")
    assert (train.texts, test.texts) == (["de/train.tsv", "en/train.tsv"], ["en/test.tsv"])
    assert train.attributes["domain"].names == ("de", "en")
    assert messages == ["test: 1 texts of en/test.tsv; de/valid.tsv not read"]


def test_backup_copies_are_left_out(tmp_path):
    for name in ("en.csv", "en.csv~", "en (1).csv", "Copy of en.csv", "__MACOSX/en.csv", "en.csv.bak"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("label,text\nx,one\n")
    (tmp_path / "en (2).csv").write_text("label,text\nx,two\n")
    assert load(tmp_path)[0].texts == ["two", "one"], "another text is no copy"


@pytest.mark.parametrize("rows", ["text\nsecret\n", "label,text\n-1,secret\n"])
def test_a_test_without_labels_is_not_read(tmp_path, caplog, rows):
    (tmp_path / "train.csv").write_text("label,text\nx,a\n")
    (tmp_path / "test.csv").write_text(rows)
    (_, test), messages = said(caplog, tmp_path)
    assert test is None
    assert "test.csv (without labels) not read" in messages[0]
    (tmp_path / "train.csv").write_text("label,text\n-1,a\n1,b\n")
    if "label" in rows:
        assert load(tmp_path)[1].texts == ["secret"], "-1 is a label where the training data has it too"


def test_long_texts_other_separators_and_capitals_are_read(tmp_path):
    limit, long = csv.field_size_limit(), "word " * 30_000
    (tmp_path / "a.csv").write_text(f'\ufeffText;Label;n\n"{long}; ""x""\n\n y";sport;1\n', encoding="utf-8")
    (tmp_path / "b.csv").write_text('label\ttext\nsport\t"a, b"\n\n')
    assert load(tmp_path)[0].texts == [f'{long}; "x"\n\n y', "a, b"]
    assert csv.field_size_limit() == limit


def test_blank_lines_are_left_out_and_halves_of_characters_replaced(tmp_path, caplog):
    (tmp_path / "train.csv").write_text("label,text\na,one\n,\n   \n")
    (tmp_path / "train-2.jsonl").write_text('{"label": "b", "text": "two \\ud83d"}\n \n')
    (tmp_path / "test.parquet").write_bytes(b"PAR1")
    found = said(caplog, tmp_path)
    assert found[0][0].texts == ["two \ufffd", "one"]
    assert found[1][0].endswith("test.parquet not read")


def test_links_that_lead_back_are_not_followed(tmp_path):
    (tmp_path / "en").mkdir()
    for name in ("back", "again"):
        (tmp_path / "en" / name).symlink_to(tmp_path)
    with pytest.raises(InputError, match="a file with texts to train on"):
        load(tmp_path)
    (tmp_path / "en" / "x.tsv").write_text(tsv())
    assert len(load(tmp_path)[0].texts) == 3


def test_one_file_has_no_domain(tmp_path):
    (tmp_path / "v1.2.tsv").write_text(tsv())
    train, _ = load(tmp_path / "v1.2.tsv")
    assert list(train.attributes) == ["label"]
    assert train.texts == [text for _, text in ROWS]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.tsv", "label\ttext\nsport\n", r"a.tsv:2: got 'sport'; expected 2 columns, .* there are 1"),
        ("a.tsv", "label\twords\nsport\tx\n", r"a.tsv:2.*a column text or"),
        ("a.tsv", "text\nx\n", r"a.tsv:2.*a column label or"),
        ("a.tsv", "label\ttext\nsport\t \n", r"a.tsv:2: got ' '; expected a text in text"),
        ("a.csv", 'label,text\nsport,"x\n', r"a.csv:\d.*a line of the table"),
        ("a.jsonl", '{"label": 1, "text": "x"}\n{"label": 1,\n', r"a.jsonl:2.*a JSON object"),
        ("a.jsonl", "[1]\n", r"a.jsonl:1.*a JSON object"),
        ("a.jsonl", '{"label": null, "text": "x"}\n', r"a.jsonl:1: got None; expected a text in label"),
        ("a.jsonl", '{"label": 1, "text": ["x"]}\n', r"a.jsonl:1: got \['x'\]"),
        ("a.jsonl", "[" * 100_000, r"a.jsonl:1.*a JSON object"),
        ("a.tsv", b"label\ttext\nsport\t\xff\n", r"expected UTF-8 text"),
        ("a.tsv", "", r"a file with texts to train on"),
        ("a.txt", "x", r"a file with texts to train on"),
        ("a.test.tsv", "label\ttext\nsport\tx\n", r"a file with texts to train on"),
    ],
)
def test_an_invalid_file_is_refused_with_the_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=words):
        load(tmp_path)


def test_missing_files_are_refused(tmp_path):
    for path in (tmp_path / "none", tmp_path / "none.tsv"):
        with pytest.raises(InputError, match=r"data.source"):
            load(path)


def test_domains_can_be_the_clients(tmp_path):
    for domain in ("en", "de", "fr"):
        (tmp_path / f"{domain}.tsv").write_text(tsv(ROWS * 4))
    settings = {
        "task": "text_classification",
        "clients": 3,
        "cohort": 1,
        "data": {"source": f"texts:{tmp_path}"},
    }
    found = load_federation(parse_config({**settings, "partition": {"name": "natural", "by": "domain"}}))
    domains = found.attributes["domain"].codes
    held = [set(domains[found.population.train(client).rows].tolist()) for client in range(3)]
    assert sorted(held, key=min) == [{0}, {1}, {2}]
    assert list(found.attributes) == ["label", "domain"]
