"""The embedded tagging: Python's own tokens."""

import keyword
from collections import Counter

import pytest
from support.sources import read_corpus

from fedtlu_fast import InputError
from fedtlu_fast.data.sources import pycode

SOURCE = '''\
class Dog(Animal):  # barks
    """Text."""
    def bark(self, times=2):
        return self.throat.sound(f"{times}x") + \\
            noise.level

async = 1
'''


def tagged(source, monkeypatch):
    monkeypatch.setattr(pycode, "MODULES", "shlex")
    monkeypatch.setattr("importlib.machinery.SourceFileLoader.get_source", lambda *_: source)
    corpus = read_corpus("pycode", 0.01)
    return [list(zip(own.words, own.tags, strict=True)) for own in corpus.train]


def test_tokens_are_tagged_by_what_they_are(monkeypatch):
    lines = tagged(SOURCE, monkeypatch)
    assert len(lines) == 5, "logical lines: one is written on two"
    tags = {word: tag for line in lines for word, tag in line}
    expected = {
        "class": "KEYWORD", "Dog": "DEFINITION", "Animal": "NAME", "# barks": "COMMENT",
        '"""Text."""': "STRING",
        "def": "KEYWORD", "bark": "DEFINITION", "2": "NUMBER", "=": "OPERATOR", "return": "KEYWORD",
        "self": "NAME", "throat": "ATTRIBUTE", "sound": "CALL", "level": "ATTRIBUTE", "noise": "NAME",
    }  # fmt: skip
    assert {word: tags[word] for word in expected} == expected
    assert all(word.strip() for line in lines for word, _ in line)


def test_the_corpus_is_the_standard_library_and_always_the_same():
    corpus = read_corpus("pycode", 0.1)
    assert corpus == read_corpus("pycode", 0.1)
    assert len({own.document for own in corpus.train}) > 70
    assert len(corpus.train) > 5000
    assert len(corpus.test) / (len(corpus.train) + len(corpus.test)) == pytest.approx(0.1, abs=0.001)
    tags = Counter(tag for own in corpus.train for tag in own.tags)
    assert set(tags) == {
        "ATTRIBUTE", "CALL", "COMMENT", "DEFINITION", "KEYWORD", "NAME", "NUMBER", "OPERATOR", "STRING",
    }  # fmt: skip
    assert max(tags.values()) < 0.5 * sum(tags.values())
    for own in corpus.test:
        for word, tag in zip(own.words, own.tags, strict=True):
            assert (tag == "KEYWORD") == keyword.iskeyword(word)


def test_a_python_without_source_code_is_an_error(monkeypatch):
    monkeypatch.setattr(pycode, "MODULES", "sys no_such_module_at_all")
    with pytest.raises(InputError, match="got 'pycode'; expected a Python with its library's source code"):
        read_corpus("pycode", 0.1)
