import os
import subprocess
from pathlib import Path

import pytest

from fedtlu_fast.errors import FedtluError, InputError, StorageError, shorten
from fedtlu_fast.shown import one_line, shell_word, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("naïve é 中 हिन्दी a\u200db $x$ [bold]", "naïve é 中 हिन्दी a\u200db $x$ [bold]"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\nb\r\tc\x00\x7f\x9b", "a\\nb\\r\\tc\\x00\\x7f\\x9b"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\ud800x", "\\ud800x"),
        (os.fsdecode(b"p\xff"), "p\\xff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_signs_that_cannot_be_seen_are_escapes(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(shown) == shown


@pytest.mark.parametrize(
    "name",
    [b"plain", b"two words", b"it's", b"\xff\xfe", b"p\xffab'\\", b"new\nline", b"\x1b[0m", "é\n".encode()],
)
def test_a_shell_takes_the_word_for_the_path(name: bytes) -> None:
    word = shell_word(Path(os.fsdecode(name)))
    assert word == visible(word)
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert done.stdout == name


def test_messages_are_one_line_whatever_names_are_in_them() -> None:
    assert str(FedtluError("a\nb\x1b")) == "a\\nb\\x1b"
    assert str(StorageError("a\nb\x1b")).startswith(
        "a\\nb\\x1b, then you can resume it with resume=True (of a"
    )
    error = InputError("file\n:3", "v\x1b", "x\u202e")
    assert str(error) == "file\\n:3: got 'v\\x1b'; expected x\\u202e"
    assert one_line(ValueError("one\n  two\x1b")) == "one two\\x1b"


def test_values_that_cannot_be_written_are_named_by_their_kind() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    assert shorten(10**5000) == "a value of int that cannot be shown"
    assert shorten(Odd()) == "a value of Odd that cannot be shown"
