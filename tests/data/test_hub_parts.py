"""Data sets that `datasets` loads: their places, the division of their splits, and hidden labels."""

import json

import pytest
from support.sources import read_corpus, read_texts

from fedtlu_fast import InputError
from fedtlu_fast.data.hub.location import Location, read_location
from fedtlu_fast.data.hub.parts import load_parts

datasets = pytest.importorskip("datasets")


def write(folder, **splits):
    """Splits as .jsonl files: rows of a text and a label each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, labels in splits.items():
        rows = [{"text": f"text {place} of {name}", "label": label} for place, label in enumerate(labels)]
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def test_name_configuration_and_revision_are_parsed(tmp_path, monkeypatch):
    assert read_location("org/set") == Location("org/set")
    assert read_location("org/set:de@refs/convert/parquet") == Location(
        "org/set", "de", "refs/convert/parquet"
    )
    for name in ("jane@example.org/set", "12:30/set", "a@b:c"):
        path = tmp_path / name
        path.mkdir(parents=True)
        assert read_location(str(path)) == Location(str(path))
        assert read_location(f"{path}:de") == Location(str(path), "de")
    monkeypatch.chdir(tmp_path)
    assert read_location("a@b:c") == Location("a@b:c")
    for missing in (f"{tmp_path}/jane@example.org/sett", "./nope", "~/no such folder"):
        with pytest.raises(InputError, match=r"got 'hf:.*a folder that exists; this one does not"):
            load_parts(read_location(missing))


@pytest.mark.parametrize("name", ["jane@example.org", "12:30"])
def test_a_local_folder_may_be_called_anything(folder, name):
    write(folder / name, train=[0, 1, 1])
    assert len(read_texts(f"hf:{folder / name}")[0].texts) == 3


def test_splits_are_divided_by_name(folder, caplog):
    card = "".join(
        f"  - split: {name}\n    path: {name}.jsonl\n"
        for name in ("train_r1", "train_r2", "dev_r1", "test_r1", "extra")
    )
    write(folder, train_r1=[0, 1], train_r2=[1], dev_r1=[0], test_r1=[1, 1], extra=[0])
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files:\n{card}---\n")
    with caplog.at_level("INFO", "fedtlu_fast.data"):
        train, test = read_texts(f"hf:{folder}")
    assert (len(train.texts), len(test.texts)) == (3, 2)
    assert caplog.messages == ["test: 2 texts of test_r1; dev_r1, extra not read"]


def test_files_that_datasets_does_not_divide_are_divided(folder):
    write(folder, Train=[0, 1], TestSet=[1], Dev=[0, 0])
    found = load_parts(Location(str(folder)))
    assert (len(found.train), len(found.test), list(found.unread)) == (2, 1, ["validation"])


@pytest.mark.parametrize("layout", ["{}/x.jsonl", "data/{}.jsonl", "v1/{}/a/x.jsonl"])
@pytest.mark.parametrize("card", ["# A data set\n", "---\nlicense: mit\n---\n"])
def test_folders_that_datasets_does_not_divide_are_divided(folder, layout, card):
    for name, labels in (("Training", [0, 1]), ("TEST", [1]), ("Val", [0, 0])):
        path = folder / layout.format(name)
        write(path.parent, **{path.stem: labels})
    (folder / "README.md").write_text(card)
    found = load_parts(Location(str(folder)))
    assert (len(found.train), len(found.test), list(found.unread)) == (2, 1, ["validation"])


def test_a_folder_with_the_name_of_a_reader_is_the_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)
    write(folder, other=[7])
    with pytest.raises(InputError, match=r"the name of a data set; this is one of its readers"):
        load_parts(read_location("json"))
    write(folder / "json", Train=[0, 1], Test=[1])
    found = load_parts(read_location("json"))
    assert (len(found.train), len(found.test)) == (2, 1)


def test_files_of_an_inner_folder_are_divided(folder):
    for name in ("en", "de"):
        write(folder / name, Train=[0, 1], Test=[1])
    assert len(load_parts(Location(str(folder), "en")).test) == 1
    found = load_parts(Location(str(folder)))
    assert (len(found.train), len(found.test)) == (4, 2)


def test_a_test_without_labels_is_not_read(folder, caplog):
    write(folder, train=[0, 1], validation=[0], test=[-1, -1])
    with caplog.at_level("INFO", "fedtlu_fast.data"):
        train, test = read_texts(f"hf:{folder}")
    assert test is None
    assert len(train.texts) == 2
    assert caplog.messages[0].endswith("test (its labels are hidden), validation not read")


def test_hidden_training_labels_are_refused(folder):
    write(folder, train=[-1, -1], test=[0, 1])
    with pytest.raises(InputError, match=r"labels to train on; those of its split train are hidden"):
        read_texts(f"hf:{folder}")
    write(folder, train=[0, 1], test=[0, -1])
    with pytest.raises(InputError, match=r"split test, column label\[1\]: got -1; .*take the rows out"):
        read_texts(f"hf:{folder}")


def test_rows_without_a_named_label_are_left_out(folder, caplog):
    rows = {"text": ["a", "b", "c", "d"], "label": [0, -1, 1, None]}
    kinds = datasets.Features(text=datasets.Value("string"), label=datasets.ClassLabel(names=["x", "y"]))
    datasets.Dataset.from_dict(rows, kinds).to_parquet(folder / "train.parquet")
    with caplog.at_level("INFO", "fedtlu_fast.data"):
        train, _ = read_texts(f"hf:{folder}")
    assert train.texts == ["a", "c"]
    assert caplog.messages[0] == "train: 2 of 4 left out, which have no label"


def test_a_tagged_test_without_tags_is_not_read(folder):
    for name, tags in (("train", ["NOUN", "VERB"]), ("test", [-1, -1])):
        rows = [{"tokens": ["a", "b"], "upos": tags}] * 4
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    corpus = read_corpus(f"hf:{folder}", 0.5)
    assert (len(corpus.train), len(corpus.test)) == (2, 2)


def test_a_tagged_data_set_without_its_words_is_refused(folder):
    rows = [{"tokens": ["_", "_"], "upos": ["NOUN", "VERB"]}] * 4
    (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    with pytest.raises(InputError, match=r"_ in place of 8 of 8 words"):
        read_corpus(f"hf:{folder}", 0.5)
