"""Tagged sentences from data sets that `datasets` loads."""

import pytest
from support.sources import read_corpus

from fedtlu_fast import InputError
from fedtlu_fast.data.tagged import UPOS

datasets = pytest.importorskip("datasets")

NAMES = ["NOUN", "PUNCT", "_", "VERB"]
ROWS = {
    "idx": ["weblog-site-0001", "weblog-site-0002", "email-x-0001"],
    "tokens": [["dogs", "don't", "do", "."], ["run"], ["it's", "it"]],
    "upos": [["NOUN", "_", "VERB", "PUNCT"], ["VERB"], ["_", "NOUN"]],
}


def write(folder, rows, split="train", kind="strings", column="upos"):
    """Parquet files with tags as strings, or as numbers with names."""
    tags = rows["upos"]
    if kind != "strings":
        tags = [[NAMES.index(tag) for tag in own] for own in tags]
    rest = {name: values for name, values in rows.items() if name != "upos"}
    made = datasets.Dataset.from_dict({**rest, column: tags})
    if kind == "labels":
        listed = type(made.features[column])
        made = made.cast_column(column, listed(datasets.ClassLabel(names=NAMES)))
    folder.mkdir(parents=True, exist_ok=True)
    made.to_parquet(folder / f"{split}-0.parquet")


@pytest.mark.parametrize("kind", ["strings", "labels"])
def test_words_and_tags_of_both_kinds(folder, kind):
    write(folder, ROWS, kind=kind)
    write(folder, {name: values[:1] for name, values in ROWS.items()}, "test", kind)
    corpus = read_corpus(f"hf:{folder}", 0.5)
    assert [own.words for own in corpus.train] == [("dogs", "do", "."), ("run",), ("it",)]
    assert [own.tags for own in corpus.train] == [("NOUN", "VERB", "PUNCT"), ("VERB",), ("NOUN",)]
    assert [own.document for own in corpus.train] == ["weblog-site", "weblog-site", "email-x"]
    assert [own.words for own in corpus.test] == [("dogs", "do", ".")]
    assert corpus.tags == UPOS


def test_other_names_of_columns_and_a_missing_test_are_allowed(folder):
    rows = {"words": [["a"], ["b"]] * 50, "upos": [["VERB"], ["NOUN"]] * 50}
    write(folder, rows, column="pos_tags")
    corpus = read_corpus(f"hf:{folder}", 0.1)
    assert (len(corpus.train), len(corpus.test)) == (90, 10)
    assert len({own.document for own in corpus.train}) == 5, "sections"
    assert corpus.tags == (), "other tags than the universal ones"


def test_a_configuration_by_name_or_as_a_folder(folder):
    write(folder / "one", ROWS)
    write(folder / "two", {name: values[1:2] for name, values in ROWS.items()})
    assert len(read_corpus(f"hf:{folder}:two", 0.5).train) + 0 in (0, 1)
    assert {own.words for own in read_corpus(f"hf:{folder}:one", 0.34).train} == {
        ("dogs", "do", "."),
        ("run",),
    }
    (folder / "README.md").write_text(
        "---\nconfigs:\n- config_name: first\n  data_dir: one\n- config_name: second\n  data_dir: two\n---\n"
    )
    found = read_corpus(f"hf:{folder}:first", 0.34)
    assert {own.words for own in found.train} == {("dogs", "do", "."), ("run",)}
    with pytest.raises(InputError, match=r"Config name is missing.*Name one: hf:.*:CONFIG"):
        read_corpus(f"hf:{folder}", 0.5)


def test_a_loading_script_is_refused_with_the_fix(folder):
    (folder / f"{folder.name}.py").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"scripts are no longer supported.*hf:.*@refs/convert/parquet"):
        read_corpus(f"hf:{folder}", 0.5)


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        ({"upos": [["NOUN"]]}, "strings", "a column named tokens or words; it has upos"),
        ({"tokens": [["a"]], "upos": [["NOUN", "VERB"]]}, "strings", r"train\[0\].*two lists of one length"),
        ({"tokens": ["a"], "upos": [["NOUN"]]}, "strings", r"train\[0\].*two lists of one length"),
        (
            {"tokens": [["a"], ["b"]], "upos": [["NOUN"], [""]]},
            "strings",
            r"train\[1\]: got ''.*name of a tag",
        ),
        (
            {"tokens": [["a"]], "upos": [["NOUN"]]},
            "numbers",
            r"train\[0\]: got 0; .*its number where they have names",
        ),
        (
            {"tokens": [[""]], "upos": [["NOUN"]]},
            "labels",
            r"train\[0\]: got ''; expected a word, tagged NOUN",
        ),
        ({"tokens": [["a"]], "upos": [["_"]]}, "labels", "train: got 'no tag but _ in column upos'"),
    ],
    ids=["no words", "lengths", "no lists", "empty tag", "numbers", "empty word", "no tags"],
)
def test_invalid_rows_are_refused(folder, rows, kind, message):
    write(folder, rows, kind=kind)
    with pytest.raises(InputError, match=f"hf:{folder}.*{message}"):
        read_corpus(f"hf:{folder}", 0.5)


def test_a_missing_label_and_missing_columns_or_splits_are_refused(folder):
    made = datasets.Dataset.from_dict({"tokens": [["a", "b"]], "upos": [[0, 1]]})
    listed = type(made.features["upos"])
    made = made.cast_column("upos", listed(datasets.ClassLabel(names=NAMES)))
    made = made.map(lambda row: {"upos": [0, -1]}, features=made.features)
    made.to_parquet(folder / "train.parquet")
    with pytest.raises(InputError, match=r"train\[0\]: got -1"):
        read_corpus(f"hf:{folder}", 0.5)
    datasets.Dataset.from_dict({"tokens": [["a"]], "ner": [["O"]]}).to_parquet(folder / "train.parquet")
    with pytest.raises(InputError, match="a column named upos or upos_tags or pos_tags; it has tokens, ner"):
        read_corpus(f"hf:{folder}", 0.5)
    (folder / "train.parquet").rename(folder / "test.parquet")
    with pytest.raises(InputError, match="a split train; it has test"):
        read_corpus(f"hf:{folder}", 0.5)
