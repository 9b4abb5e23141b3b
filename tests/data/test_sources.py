"""Sources of running text, and the messages for sources without text."""

import gzip
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sources import read_documents, read_parts

from fedtlu_fast import InputError
from fedtlu_fast.data.documents import SECTION_CHARACTERS, SECTIONS, Document
from fedtlu_fast.data.tokenizing import UNKNOWN, PretrainedTokenizer, WordTokenizer, windows

# --- the language reference ----------------------------------------------------------------------


def test_pydoc_is_the_language_reference_by_topic():
    documents = read_documents("pydoc")
    names = [document.name for document in documents]
    assert names == sorted(set(names))
    assert len(documents) > 70
    assert {"assignment", "lambda", "with"} <= set(names)
    assert sum(len(document.text) for document in documents) > 400_000
    assert read_documents("pydoc") == documents


# --- files ---------------------------------------------------------------------------------------


def test_a_file_is_cut_into_sections_at_blank_lines(tmp_path):
    paragraphs = [f"paragraph {index} " + "word " * (index % 700) for index in range(500)]
    path = tmp_path / "book.txt"
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    documents = read_documents(f"text:{path}")
    assert 50 <= len(documents) <= SECTIONS
    names = [document.name for document in documents]
    assert names[0] == "book.txt#00"
    assert names == sorted(names)
    assert "\n\n".join(document.text for document in documents) == path.read_text()
    lengths = [len(document.text) for document in documents]
    assert max(lengths[:-1]) < 2 * min(lengths[:-1])


@given(st.lists(st.text("ab \n", max_size=40), max_size=200))
def test_sections_hold_every_word_once_in_order(tmp_path_factory, paragraphs):
    text = "\n\n".join(paragraphs)
    path = tmp_path_factory.getbasetemp() / "any.txt"
    path.write_text(text, encoding="utf-8")
    if not text.strip():
        with pytest.raises(InputError, match="there is none in it"):
            read_documents(f"text:{path}")
        return
    documents = read_documents(f"text:{path}")
    assert len(documents) <= SECTIONS
    assert all(document.text.strip() for document in documents)
    assert " ".join(document.text for document in documents).split() == text.split()


def test_one_paragraph_is_one_document(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\ntwo\n", encoding="utf-8")
    assert read_documents(f"text:{path}") == [Document("a.txt#0", "one\ntwo\n")]


def test_letters_of_any_script_and_line_ends_of_any_system(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("grüße 你好\r\n\r\nπ\r\n".encode())
    documents = read_documents(f"text:{path}")
    assert [document.text.split() for document in documents] == [["grüße", "你好", "π"]]


def test_short_files_are_cut_into_few_sections_that_each_fill_samples(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join(["twenty letters a line"] * 1000), encoding="utf-8")
    lengths = [len(document.text) for document in read_documents(f"text:{path}")]
    assert 4 <= len(lengths) <= 6
    assert min(lengths[:-1]) >= SECTION_CHARACTERS


def test_a_directory_is_one_document_a_file(tmp_path):
    for name, text in {"b.txt": "b", "a/z.md": "z", "a/b/c": "c", "empty.txt": " \n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    expected = [Document("a/b/c", "c"), Document("a/z.md", "z"), Document("b.txt", "b")]
    assert read_documents(f"text:{tmp_path}") == expected


def test_hidden_files_and_files_in_hidden_folders_are_left_out(tmp_path):
    (tmp_path / ".git" / "objects").mkdir(parents=True)
    (tmp_path / ".git" / "objects" / "pack").write_bytes(b"\xff\xfe\x00")
    (tmp_path / ".DS_Store").write_bytes(b"\xff")
    (tmp_path / "a.txt").write_text("a", encoding="utf-8")
    assert [document.name for document in read_documents(f"text:{tmp_path}")] == ["a.txt"]


def test_names_in_a_directory_say_the_part_at_every_level(tmp_path, caplog):
    names = (
        "wiki/wiki.train.tokens",
        "wiki/wiki.test.tokens.gz",
        "wiki/wiki.valid.tokens",
        "driving_test.txt",
    )
    names += (
        "books/train/test.txt",
        "books/Test/a.txt",
        "books/notes.txt",
        "books/notes.txt~",
        "__MACOSX/a.txt",
    )
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        content = f"\ufeff{name}".encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if ".gz" in name else content)
    with caplog.at_level("INFO", "fedtlu_fast.data"):
        found = read_parts(f"text:{tmp_path}")
    assert {own.text for own in found.train.items} == {names[0], names[3], names[4], names[6]}
    assert {own.text for own in found.test.items} == {names[1], names[5]}
    said = "test: 2 documents of books/Test, wiki/wiki.test.tokens.gz; wiki/wiki.valid.tokens not read"
    assert caplog.messages == [said]


def test_a_test_without_training_text_is_refused(tmp_path):
    (tmp_path / "test.txt").write_text("a")
    with pytest.raises(InputError, match=r"text to train on beside test\.txt"):
        read_documents(f"text:{tmp_path}")


def test_a_device_or_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(InputError, match="a file, no folder, device or pipe"):
            read_documents(f"text:{source}")


def test_a_directory_below_a_hidden_one_is_read(tmp_path):
    inside = tmp_path / ".cache" / "corpus"
    inside.mkdir(parents=True)
    (inside / "a.txt").write_text("a", encoding="utf-8")
    assert len(read_documents(f"text:{inside}")) == 1


def test_text_that_is_not_utf_8_names_the_file_and_the_byte(tmp_path):
    good, bad = tmp_path / "a.txt", tmp_path / "b.txt"
    good.write_text("fine", encoding="utf-8")
    bad.write_bytes("caf\xe9 noir".encode("latin-1"))
    for source in (bad, tmp_path):
        with pytest.raises(InputError, match=r"b\.txt'; expected UTF-8 text; byte 3 is 0xe9.*iconv"):
            read_documents(f"text:{source}")


@pytest.mark.parametrize("content", ["", " \n\n\t\n"])
def test_an_empty_file_or_directory_is_refused(tmp_path, content):
    path = tmp_path / "folder" / "a.txt"
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8")
    for source in (path, path.parent):
        with pytest.raises(InputError, match="expected text; there is none in it"):
            read_documents(f"text:{source}")
    path.unlink()
    with pytest.raises(InputError, match="there is none in it"):
        read_documents(f"text:{path.parent}")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "got ''; expected one of pydoc, text:PATH, ptb:DIR, hf:NAME"),
        ("text:", "expected text:PATH"),
        ("text", "expected text:PATH"),
        ("hf:", "expected hf:NAME"),
        ("pydoc:x", "expected pydoc without an argument"),
        ("corpus.txt", "expected one of pydoc, text:PATH, ptb:DIR, hf:NAME"),
        ("os:sep", "expected the name of a subclass of Source"),
        ("os:no_such", "expected a name that can be imported"),
        ("text:/no/such/file", "got 'text:/no/such/file'; expected a file or a directory that exists"),
        ("text:a\0b", "expected a file or a directory that exists"),
        ("text:" + "a" * 5000, "a path that can be read; .*too long"),
        ("text:~no-such-user-here/a.txt", "a path that can be read|that exists"),
    ],
    ids=lambda value: value[:20],
)
def test_a_source_that_cannot_be_read_is_refused(source, message):
    with pytest.raises(InputError, match=f"data.source: .*{message}"):
        read_documents(source)


# --- text to samples -----------------------------------------------------------------------------


def test_words_and_single_marks_become_tokens():
    tokenizer = WordTokenizer(["the cat sat; the end. x_1 == y!"], 100)
    words = ["the", "cat", "sat", ";", "end", ".", "x_1", "=", "y", "!"]
    assert len(tokenizer) == 1 + len(words)
    assert len(tokenizer.encode("the cat==the cat")) == 6
    assert tokenizer.encode("") == tokenizer.encode(" \n\t") == []
    assert tokenizer.encode("thecat") == tokenizer.encode("CAT") == tokenizer.encode(UNKNOWN)


def test_the_most_frequent_words_are_kept_ties_by_alphabet():
    tokenizer = WordTokenizer(["d d d c c b a e"], 5)
    unknown = tokenizer.encode("zebra")[0]
    kept = [word for word in "abcde" if tokenizer.encode(word) != [unknown]]
    assert kept == ["a", "b", "c", "d"]
    for order in (["e a b c c d d d"], ["b", "a", "d d", "c c", "d e"]):
        again = WordTokenizer(order, 5)
        assert [again.encode(word) for word in "abcde"] == [tokenizer.encode(word) for word in "abcde"]


@given(st.integers(0, 60), st.integers(2, 9))
def test_windows_predict_every_token_once(count, length):
    ids = list(range(100, 100 + count))
    got = windows(ids, length)
    assert got.shape == (max(0, (count - 1) // length), length + 1)
    targets = got[:, 1:].flatten().tolist()
    assert targets == ids[1 : 1 + len(targets)]
    assert got[:, :-1].flatten().tolist() == ids[: len(targets)]
    assert len(ids) - 1 - len(targets) < length or not ids
    if len(got) > 1:
        got[0, -1] = -1
        assert got[1, 0] != -1, "samples are copies, not views of each other"


def test_a_missing_pretrained_tokenizer_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"model.pretrained: .*a model that brings its tokenizer"):
        PretrainedTokenizer(str(tmp_path))


def test_sections_are_closed_when_they_are_long_enough(tmp_path):
    path = tmp_path / "a.txt"
    paragraphs = ["x" * 1500] * 7
    path.write_text("\n\n".join(paragraphs), encoding="utf-8")
    assert [document.text.count("\n\n") + 1 for document in read_documents(f"text:{path}")] == [3, 3, 1]
