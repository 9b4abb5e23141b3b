"""Words of text in any script, one rule for all tasks; and where a text may be cut."""

from __future__ import annotations

import re
import unicodedata

from tokenizers import Regex, pre_tokenizers

_CHARACTERS = r"\p{Han}\p{Hiragana}\p{Katakana}"
"""Scripts of which every character is a word."""
_PHRASES = (
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Javanese}\p{Balinese}\p{Tai_Tham}\p{New_Tai_Lue}\p{Tai_Viet}"
)
"""Scripts with spaces between phrases, not words."""
LONGEST = 20
"""Letters of such a script in a row that may be one word; a run of more is a phrase."""
_JOINERS = r"\x{200C}\x{200D}"
_TONES = r"\p{M}\x{1F3FB}-\x{1F3FF}\x{E0020}-\x{E007F}"
"""What belongs to the symbol before it: marks, and what varies emoji."""
_SYMBOL = rf"[^\w\s][{_TONES}]*(?:\x{{200D}}[^\w\s][{_TONES}]*)*"
_WORD = rf"[\w&&[^{_CHARACTERS}]][\w{_JOINERS}&&[^{_CHARACTERS}]]*"
_ONE = rf"[{_CHARACTERS}]\p{{M}}*"
_FLAG = r"[\x{1F1E6}-\x{1F1FF}]{2}"
_PIECE = rf"\A.{{1,{LONGEST}}}\z|(?:[{_PHRASES}]\p{{M}}*)|[^{_PHRASES}]+"

words_and_marks: pre_tokenizers.PreTokenizer = pre_tokenizers.Sequence(
    [
        pre_tokenizers.Split(Regex(f"{_ONE}|{_WORD}|{_FLAG}|{_SYMBOL}"), "removed", invert=True),
        pre_tokenizers.Split(Regex(_PIECE), "removed", invert=True),
    ]
)
"""Cuts a text into words and single marks of punctuation, and leaves white space out.

A word is a run of letters, digits, ``_``, combining marks (vowel signs, points of Hebrew and Arabic, accents)
and the joiners of Indic and Persian spelling. In Chinese and Japanese every character is a word, and so are
the characters of a run of more than `LONGEST` in Thai, Lao, Khmer, Burmese, Javanese, Balinese and the Tai
scripts, where words are not divided.
An emoji is one mark with all that varies it.
"""

UNSPACED = re.compile(
    "(CJK|IDEOGRAPHIC|FULLWIDTH|HALFWIDTH|HIRAGANA|KATAKANA(-HIRAGANA)?|THAI|LAO|KHMER|MYANMAR"
    "|JAVANESE|BALINESE|TAI THAM|NEW TAI LUE|TAI VIET) "
)
"""What begins the names of characters in scripts that are written without spaces between words."""
JOINERS = "\u200c\u200d"
FAR = 100
"""Characters; where the next white space is farther away, a text is cut elsewhere."""


def words_of(text: str) -> list[str]:
    """The words and marks of a text; see `words_and_marks`."""
    return [word for word, _ in words_and_marks.pre_tokenize_str(text)]


def boundary(text: str, place: int) -> int:
    """The first place from this one on where a text may be cut in two; at most its length.

    That is at white space; in a script that is written without spaces, before any character; and in a text
    whose next white space is `FAR` or missing, such as a line of code, between a word and a mark, or before
    any character where there is neither, as in a genome.
    """
    if 0 < place < len(text) and _unspaced(text[place]):
        return _whole(text, place)
    end = place
    while end < len(text) and not text[end].isspace():
        end += 1
    if end < len(text) and end - place <= FAR:
        return end
    for near in range(max(place, 1), end):
        if not (text[near - 1].isalnum() and text[near].isalnum()) and not _is_mark(text[near]):
            return near
    return end if end - place <= FAR else _whole(text, place)


def _unspaced(sign: str) -> bool:
    return UNSPACED.match(unicodedata.name(sign, "")) is not None


def _whole(text: str, place: int) -> int:
    """The place, or the one behind the marks there, which belong to the character before it."""
    while place < len(text) and _is_mark(text[place]):
        place += 1
    return place


def _is_mark(sign: str) -> bool:
    return unicodedata.category(sign)[0] == "M" or sign in JOINERS
