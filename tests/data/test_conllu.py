"""CoNLL-U: words that are read, lines that are left out, and messages for files that break the format."""

import bz2
import gzip
import lzma
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.real_data import real
from support.sources import read_corpus
from support.treebanks import conllu, write_treebank

from fedtlu_fast import InputError
from fedtlu_fast.data.sources.udpos import read_conllu
from fedtlu_fast.data.tagged import UPOS

EXAMPLE = """\
# newdoc id = weblog-some.site_2005
# sent_id = weblog-some.site_2005-0001
# text = I don't see 3,5 #1.
1\tI\tI\tPRON\tPRP\tCase=Nom\t4\tnsubj\t4:nsubj\t_
2-3\tdon't\t_\t_\t_\t_\t_\t_\t_\t_
2\tdo\tdo\tAUX\tVBP\t_\t4\taux\t4:aux\t_
3\tn't\tnot\tPART\tRB\t_\t4\tadvmod\t4:advmod\t_
4\tsee\tsee\tVERB\tVB\t_\t0\troot\t0:root\t_
4.1\tseen\tsee\tVERB\t_\t_\t_\t_\t0:root\t_
5\t3,5\t3,5\tNUM\tCD\t_\t4\tobj\t4:obj\t_
6\t#1\t#1\tSYM\tNN\t_\t4\tobj\t4:obj\tSpaceAfter=No

# newpar
# text = to be
1\tto be\tto be\tX\t_\t_\t0\troot\t_\t_

# newdoc id = essay-7
1\t_\t_\tPUNCT\t_\t_\t0\troot\t_\t_
"""


@pytest.fixture
def write(tmp_path):
    def write(text, name="a.conllu"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_words_tags_documents_and_genres(write):
    first, second, third = read_conllu(write(EXAMPLE))
    assert first.words == ("I", "do", "n't", "see", "3,5", "#1")
    assert first.tags == ("PRON", "AUX", "PART", "VERB", "NUM", "SYM")
    assert (first.document, first.genre) == ("weblog-some.site_2005", "weblog")
    assert second.words == ("to be",), "words may hold spaces"
    assert second.document == first.document
    assert (third.words, third.tags) == (("_",), ("PUNCT",)), "a word may be an underscore, and the end bare"
    assert (third.document, third.genre) == ("essay-7", "unknown")


@pytest.mark.parametrize("change", ["crlf", "blank lines", "byte order mark", "gzip"])
def test_line_ends_and_empty_lines_do_not_matter(write, change):
    expected = read_conllu(write(EXAMPLE))
    other = {
        "crlf": EXAMPLE.replace("\n", "\r\n"),
        "blank lines": "\n\n" + EXAMPLE.replace("\n\n", "\n \n\n") + "\n\n",
        "byte order mark": "\ufeff" + EXAMPLE,
        "gzip": gzip.compress(EXAMPLE.encode()),
    }[change]
    assert read_conllu(write(other, "b.conllu.gz" if change == "gzip" else "b.conllu")) == expected


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=9).filter(
    lambda word: word.strip("_")
)


@given(st.lists(st.lists(st.tuples(WORDS, st.sampled_from(UPOS)), min_size=1), min_size=1))
def test_sentences_that_were_written_are_read(tmp_path_factory, sentences):
    path = tmp_path_factory.getbasetemp() / "any.conllu"
    path.write_text(conllu(sentences, "email-1"), encoding="utf-8")
    found = read_conllu(path)
    assert [list(zip(own.words, own.tags, strict=True)) for own in found] == sentences


def test_documents_without_a_name_and_files_without_documents(write):
    sentence = [("a", "X")]
    text = conllu([sentence]) + "# newdoc\n" + conllu([sentence]) + "# newdoc\n" + conllu([sentence])
    names = [own.document for own in read_conllu(write(text))]
    assert names == ["a.conllu", "a.conllu#1", "a.conllu#2"]
    many = Counter(own.document for own in read_conllu(write(conllu([sentence] * 3000))))
    assert len(many) == 64
    assert set(many.values()) <= {47, 3000 - 63 * 47}
    few = Counter(own.document for own in read_conllu(write(conllu([sentence] * 45))))
    assert few == {"a.conllu#0": 20, "a.conllu#1": 20, "a.conllu#2": 5}


def line_of(number, old, new):
    """Returns EXAMPLE with a text replaced in one line."""
    lines = EXAMPLE.split("\n")
    assert old in lines[number - 1]
    lines[number - 1] = lines[number - 1].replace(old, new, 1)
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (line_of(4, "\tCase=Nom", ""), r"a\.conllu:4: .*10 columns between tabs; there are 9"),
        (line_of(4, "PRP", "PRP\t"), "a.conllu:4: .*there are 11"),
        (line_of(4, "\t", " "), "a.conllu:4: .*there are 9"),
        (line_of(5, "\t_\t_", "\t_"), "a.conllu:5: .*there are 9"),
        (
            line_of(8, "VERB", "_"),
            "a.conllu:8: got '_'; expected a tag in the fourth column, for the word see",
        ),
        (line_of(8, "VERB", ""), "a.conllu:8: got ''; expected a tag"),
        (line_of(8, "see", ""), "a.conllu:8: got ''; expected a word in the second column"),
        (line_of(8, "4", "5"), "a.conllu:8: got '5'; expected 4 in the first column"),
        (line_of(8, "4", "x"), "a.conllu:8: got 'x'; expected 4 in the first column"),
        (
            EXAMPLE.replace("\n\n# newpar\n# text = to be\n", "\n"),
            "a.conllu:12: got '1'; expected 7.*missing",
        ),
        (line_of(6, "2\t", "# 2\t"), "a.conllu:6: .*comments before a sentence's first word only"),
        ("", "got 'no sentence'; expected one or more in CoNLL-U"),
        ("# newdoc id = a\n\n", "got 'no sentence'"),
        ("The dog runs.\n", "a.conllu:1: got 'The dog runs.'; expected 10 columns"),
    ],
    ids=str,
)
def test_a_broken_file_is_refused_with_the_line(write, text, message):
    with pytest.raises(InputError, match=message):
        read_conllu(write(text))


def test_mixed_encodings_are_refused_with_the_line(write):
    bad = EXAMPLE.replace("to be", "caf\xe9").encode("latin-1")
    with pytest.raises(
        InputError, match=r"a\.conllu'; expected UTF-8 text; byte \d+ is 0xe9, in line 14.*iconv"
    ):
        read_conllu(write(bad))
    with pytest.raises(InputError, match=r"a\.conllu'; expected UTF-8 text.*iconv -f utf-16"):
        read_conllu(write(EXAMPLE.encode("utf-16")))


@pytest.mark.parametrize(
    "data",
    [b"plain", gzip.compress(EXAMPLE.encode())[:60], b"\x1f\x8b\x08" + b"\0" * 40],
    ids=["plain", "cut", "zeros"],
)
def test_a_damaged_archive_is_refused(write, data):
    with pytest.raises(InputError, match=r"a\.conllu\.gz'; expected a readable file; "):
        read_conllu(write(data, "a.conllu.gz"))


# --- treebanks -----------------------------------------------------------------------------------


def test_a_directory_has_its_files_by_their_names(tmp_path):
    folder = write_treebank(tmp_path / "bank")
    (folder / "tiny-ud-dev.conllu").write_text("not even read", encoding="utf-8")
    (folder / "README.md").write_text("nor this", encoding="utf-8")
    corpus = read_corpus(f"udpos:{folder}", 0.5)
    assert (len(corpus.train), len(corpus.test)) == (12 * 15, 12 * 2)
    assert corpus.tags == UPOS
    assert {own.genre for own in corpus.train} == {"weblog", "email", "reviews"}
    packed = tmp_path / "packed"
    packed.mkdir()
    for name in ("train", "test"):
        data = (folder / f"tiny-ud-{name}.conllu").read_bytes()
        (packed / f"{name}.conllu.gz").write_bytes(gzip.compress(data))
    assert read_corpus(f"udpos:{packed}", 0.5) == corpus


def test_missing_and_ambiguous_files_are_refused(tmp_path):
    folder = write_treebank(tmp_path / "bank")
    (folder / "other-train.conllu.gz").write_bytes(b"")
    with pytest.raises(InputError, match=r"of one treebank; .* other-train.conllu.gz and tiny-ud-t"):
        read_corpus(f"udpos:{folder}", 0.1)
    (folder / "other-train.conllu.gz").unlink()
    (folder / "tiny-ud-train.conllu").rename(folder / "tiny-ud-dev.conllu")
    with pytest.raises(InputError, match=r"\*-train.conllu .*there is tiny-ud-test.conllu.*Name that file"):
        read_corpus(f"udpos:{folder}", 0.1)
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(InputError, match=r"\*-train.conllu .*there is none"):
        read_corpus(f"udpos:{folder}", 0.1)
    for location in (tmp_path / "nothing", "a\0b", "~no-such-user-here/x"):
        with pytest.raises(InputError, match=r"data.source: got 'udpos:.*(exists|can be read)"):
            read_corpus(f"udpos:{location}", 0.1)


def test_a_training_part_may_be_in_pieces_and_the_test_may_be_missing(tmp_path, caplog):
    whole = read_corpus(f"udpos:{write_treebank(tmp_path / 'whole')}", 0.5)
    folder = write_treebank(tmp_path / "bank")
    text = (folder / "tiny-ud-train.conllu").read_text(encoding="utf-8")
    cut = text.index("# newdoc", len(text) // 2)
    (folder / "tiny-ud-train.conllu").unlink()
    (folder / "tiny-ud-train-a.conllu").write_text(text[:cut], encoding="utf-8")
    (folder / "tiny-ud-train-b.conllu.gz").write_bytes(gzip.compress(text[cut:].encode()))
    (folder / "tiny-ud-dev.conllu").write_text("not even read", encoding="utf-8")
    (folder / "not-to-release").mkdir()
    (folder / "not-to-release" / "tiny-ud-train.conllu").write_text("nor this", encoding="utf-8")
    with caplog.at_level("INFO", "fedtlu_fast.data"):
        assert read_corpus(f"udpos:{folder}", 0.5) == whole
    assert caplog.messages == ["test: 24 sentences of tiny-ud-test.conllu; tiny-ud-dev.conllu not read"]
    (folder / "tiny-ud-test.conllu").unlink()
    assert len(read_corpus(f"udpos:{folder}", 0.5).test) == len(whole.train) // 2


def test_a_treebank_without_its_words_is_refused(tmp_path, caplog):
    path = tmp_path / "x-ud-train.conllu"
    gone, whole = [("_", "NOUN"), ("_", "VERB")], [("the", "DET"), ("dog", "NOUN"), ("runs", "VERB")]
    path.write_text(conllu([gone] * 5 + [whole]), encoding="utf-8")
    with pytest.raises(InputError, match=r"_ in place of 10 of 13 words'; .*they were taken out"):
        read_conllu(path)
    path.write_text(conllu([gone] * 2 + [whole] * 5), encoding="utf-8")
    with caplog.at_level("INFO", "fedtlu_fast.data"):
        assert [own.words for own in read_conllu(path)] == [("the", "dog", "runs")] * 5
    assert "2 sentences left out" in caplog.messages[0]


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz"])
def test_a_compressed_file_is_unpacked_within_a_limit(tmp_path, ending):
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}[ending]
    path = tmp_path / f"a.conllu{ending}"
    path.write_bytes(pack(EXAMPLE.encode()))
    assert len(read_conllu(path, len(EXAMPLE.encode()))) == 3
    with pytest.raises(InputError, match=r"data.unpacked_limit: got 100; .*a\.conllu.* Raise it"):
        read_conllu(path, 100)


def test_a_single_files_test_is_the_end_of_every_document(tmp_path):
    texts = [
        conllu([[(f"w{number}.{index}", "X")] for index in range(size)], f"d{number}")
        for number, size in enumerate([40, 1, 1, 1, 1, 26])
    ]
    (tmp_path / "a.conllu").write_text("".join(texts), encoding="utf-8")
    corpus = read_corpus(f"udpos:{tmp_path / 'a.conllu'}", 0.25)
    assert (len(corpus.train), len(corpus.test)) == (70 - 17, 17)
    tests = Counter(own.document for own in corpus.test)
    assert (tests["d0"], tests["d5"]) == (10, 6)
    assert sum(tests[f"d{number}"] for number in (1, 2, 3, 4)) == 1
    assert [own.words[0] for own in corpus.test if own.document == "d0"] == [f"w0.{i}" for i in range(30, 40)]


def test_the_english_web_treebank():
    """Compares with the numbers of the treebank's README; releases differ by one or two."""
    folder = real("ud-english-ewt")
    corpus = read_corpus(f"udpos:{folder}", 0.1)
    parts = (
        (corpus.train, 12544, 204577, 540),
        (corpus.test, 2077, 25094, 316),
        (read_conllu(folder / "en_ewt-ud-dev.conllu.gz"), 2001, 25147, 318),
    )
    for part, sentences, words, documents in parts:
        assert len(part) == pytest.approx(sentences, abs=10)
        assert sum(len(own.words) for own in part) == pytest.approx(words, rel=1e-3)
        assert len({own.document for own in part}) == pytest.approx(documents, abs=2)
        assert {own.genre for own in part} == {"answers", "email", "newsgroup", "reviews", "weblog"}
        assert {tag for own in part for tag in own.tags} == set(UPOS)
