"""Penn Treebank: three files of words as they are."""

import pytest
from support.sources import read_parts

from fedtlu_fast import InputError
from fedtlu_fast.build.data import load_federation
from fedtlu_fast.config.settings import load_config, parse_config
from fedtlu_fast.data.tokenizing import LineTokenizer, Vocabulary

LINE = " the <unk> of mr. N said it was n't u.s. \n"


@pytest.fixture
def folder(tmp_path):
    lines = "".join(f" word{index % 40} <unk> N mr. said n't \n" for index in range(1300))
    (tmp_path / "ptb.train.txt").write_text(lines, encoding="utf-8")
    (tmp_path / "ptb.test.txt").write_text(LINE * 40, encoding="utf-8")
    (tmp_path / "ptb.valid.txt").write_text("unread", encoding="utf-8")
    return tmp_path


def test_the_training_text_is_in_sections(folder):
    found = read_parts(f"ptb:{folder}")
    train, (test,) = found.train.items, found.test.items
    assert [own.name for own in train][:2] == ["ptb.train.txt#00", "ptb.train.txt#01"]
    assert len(train) == 62
    assert {own.text.count("\n") for own in train} == {21, 1300 - 61 * 21}
    whole = (folder / "ptb.train.txt").read_text()
    assert " ".join(own.text for own in train).split() == whole.split()
    assert test.text.split() == LINE.split() * 40


def test_a_byte_order_mark_is_not_a_word(folder):
    for name in ("ptb.train.txt", "ptb.test.txt"):
        (folder / name).write_text("\ufeff" + (folder / name).read_text(), encoding="utf-8")
    found = read_parts(f"ptb:{folder}")
    train, (test,) = found.train.items, found.test.items
    assert train[0].text.split()[0] == "word0"
    assert test.text.split()[0] == "the"


def test_words_stay_as_they_are_and_lines_end_with_eos():
    tokenizer = LineTokenizer(["a b u.s. <unk> n't\nb b <unk>\n"], 100)
    unknown, eos = tokenizer.encode("<unk>")
    assert (len(tokenizer), unknown) == (6, 0)
    assert tokenizer.encode("zebra\nu.s. b\n") == [0, eos, *tokenizer.encode("u.s. b")]
    assert tokenizer.encode("b\n") == [1, 2], "b is the most frequent, then <eos>"
    assert sorted({*tokenizer.encode("a b u.s. n't <unk>")}) == [0, 1, 2, 3, 4, 5]


def test_a_vocabulary_keeps_the_most_frequent_words_ties_by_alphabet():
    words = [*"dddccbae", "<unk>", "<unk>", "<pad>"]
    plain, padded = Vocabulary(words, 5), Vocabulary(words, 6, padded=True)
    assert plain.ids(["d", "c", "<pad>", "a", "b", "<unk>", "zebra"]) == [1, 2, 3, 4, 0, 0, 0]
    assert padded.ids(["d", "c", "<pad>", "a", "b", "<unk>", "zebra"]) == [2, 3, 4, 5, 1, 1, 1]
    assert (len(plain), len(padded)) == (5, 6)
    assert len(Vocabulary(words, 100)) == 7


def test_penn_treebank_makes_a_federation(folder):
    config = parse_config({"clients": 5, "cohort": 2, "data": {"source": f"ptb:{folder}", "window": 8}})
    assert config.data.vocabulary == 10_000
    data = load_federation(config)
    assert data.outputs == 1 + 40 + 5, "<unk>, 40 numbered words, N mr. said n't, <eos>"
    assert len(data.population.test[0]) == (40 * 11 - 1) // 8
    assert data.attributes["source"].names[0] == "ptb.train.txt#00"
    tokens = data.population.test[0]
    share = (tokens == 0).float().mean().item()
    assert share == pytest.approx(6 / 11, abs=0.01), "the, of, it, was, u.s. and <unk> itself"


def test_the_vocabulary_may_be_smaller_and_other_sources_keep_theirs(folder):
    for overrides in (
        ["data.vocabulary=50", f"source=ptb:{folder}"],
        [f"source=ptb:{folder}", "data.vocabulary=50"],
    ):
        assert load_config(overrides=overrides).data.vocabulary == 50
    assert load_config(overrides=["source=text:ptb:x"]).data.vocabulary == 2000


@pytest.mark.parametrize("name", ["ptb.train.txt", "ptb.test.txt"])
def test_missing_empty_and_broken_files_are_refused(folder, name):
    (folder / name).write_bytes(b" \n\n")
    with pytest.raises(InputError, match=f"{name}'; expected text; there is none"):
        read_parts(f"ptb:{folder}")
    (folder / name).write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=f"{name}'; expected UTF-8 text"):
        read_parts(f"ptb:{folder}")
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"data.source: got 'ptb:.*{name} cannot be found"):
        read_parts(f"ptb:{folder}")
    with pytest.raises(InputError, match=r"data.source: got 'ptb:"):
        read_parts("ptb:a\0b")
