"""Labelled texts as samples: the topics, the hub, encoding."""

import re

import pytest
from datasets import ClassLabel, Dataset, Features, Value
from support.sources import read_samples, read_texts

from fedtlu_fast import InputError
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.sources.topics import FAMILIES, WORDS, Topics


def config(source, **over):
    return parse_config({"task": "text_classification", "data": {"source": str(source), **over}})


def test_every_paragraph_of_the_topics_stands_once_under_the_longest_topic():
    found = read_texts("topics")[0]
    label = found.attributes["label"]
    assert len(label.names) == FAMILIES
    assert len(found.texts) == len(set(found.texts)) == len(label.codes) > 900
    assert all(len(re.findall(r"\w+", text)) >= WORDS and "\n" not in text for text in found.texts)
    counts = {name: (label.codes == code).sum() for code, name in enumerate(label.names)}
    assert min(counts.values()) >= 20
    assert {"compound", "specialnames"} <= set(label.names)
    assert "if" not in label.names
    place = next(
        place for place, text in enumerate(found.texts) if text.startswith('The "if" statement is used')
    )
    assert label.names[label.codes[place]] == "compound"
    assert found.texts == read_texts("topics")[0].texts


def test_longer_texts_lose_their_end_and_shorter_ones_are_padded(tmp_path):
    (tmp_path / "a.tsv").write_text("label\ttext\n" + "x\tone two, two\ny\tone one one one one one\n" * 5)
    found = read_samples(config(f"texts:{tmp_path}", window=5, vocabulary=8))
    tokens, labels = found.train
    assert (found.padding, found.vocabulary) == (0, 5)  # padding, <unk>, one, two, the comma
    assert tokens.shape == (9, 5)
    for row, label in zip(tokens.tolist(), labels.tolist(), strict=True):
        assert row == ([2, 3, 4, 3, 0] if label == 0 else [2] * 5)
    assert found.test[0].shape == (1, 5)


def test_words_that_only_the_test_has_are_unknown(tmp_path):
    (tmp_path / "a.train.tsv").write_text("label\ttext\nx\tone\ny\ttwo\n")
    (tmp_path / "a.test.tsv").write_text("label\ttext\nx\tthree one\n")
    found = read_samples(config(f"texts:{tmp_path}"))
    assert found.test[0].tolist() == [[1, 2]]


def test_the_hub_gives_texts_labels_and_languages(tmp_path):
    features = Features(
        {"text": Value("string"), "label": ClassLabel(names=["b", "a"]), "language": Value("string")}
    )
    columns = {"text": ["x y", "z", "x"], "label": [1, 0, 1], "language": ["en", "de", "en"]}
    Dataset.from_dict(columns, features).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    train, test = read_texts(f"hf:{tmp_path}")
    assert (list(train.texts), test) == (["x y", "z", "x"], None)
    assert train.attributes["label"].names == ("b", "a")
    assert train.attributes["language"].codes.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"words": ["a"], "label": [0]}, r"a column text or .*it has words, label"),
        ({"text": ["a", " "], "label": [0, 1]}, r"train\[1\]: got ' '; expected a text in column text"),
        ({"text": ["a"], "name": ["b"]}, r"a column label or"),
    ],
)
def test_missing_columns_are_refused(tmp_path, columns, words):
    Dataset.from_dict(columns).to_parquet(tmp_path / "train-00000-of-00001.parquet")
    with pytest.raises(InputError, match=words):
        read_texts(f"hf:{tmp_path}")


def test_a_single_label_and_an_unknown_source_are_refused(tmp_path):
    (tmp_path / "a.tsv").write_text("label\ttext\n" + "x\tone\n" * 20)
    with pytest.raises(InputError, match="two labels or more"):
        read_samples(config(f"texts:{tmp_path}"))
    with pytest.raises(InputError, match=r"topics without an argument"):
        read_texts("topics:more")


def test_topics_as_a_task_stands_for_task_and_source():
    found = parse_config({"task": "topics"})
    assert (found.task, found.data.source) == ("text_classification", Topics())
    assert load_federation(found).inputs == found.data.window
    with pytest.raises(InputError, match=r"expected text_classification, for which data.source=topics is"):
        load_federation(parse_config({"data": {"source": "topics"}}))
