"""Splits text in any script into words, by one rule for all tasks, and says where a text may be cut."""

from __future__ import annotations

import re
import unicodedata

from tokenizers import Regex, pre_tokenizers

_CHARACTERS = r"\p{Han}\p{Hiragana}\p{Katakana}"
"""Scripts in which every character counts as a word."""
_PHRASES = (
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Javanese}\p{Balinese}\p{Tai_Tham}\p{New_Tai_Lue}\p{Tai_Viet}"
)
"""Scripts with spaces between phrases, not words."""
LONGEST = 20
"""Longest run of letters of such a script that counts as one word; a longer run is a phrase."""
_JOINERS = r"\x{200C}\x{200D}"
_TONES = r"\p{M}\x{1F3FB}-\x{1F3FF}\x{E0020}-\x{E007F}"
"""Characters that belong to the symbol before them: combining marks, and modifiers of emoji."""
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
"""Splits a text into words and single punctuation marks, and drops white space.

A word is a run of letters, digits, ``_``, combining marks (vowel signs, points of Hebrew and Arabic, accents)
and the joiners of Indic and Persian spelling. In Chinese and Japanese every character is a word, and so are
the characters of a run of more than `LONGEST` in Thai, Lao, Khmer, Burmese, Javanese, Balinese and the Tai
scripts, where words are not divided.
An emoji and its modifiers are one mark.
"""

UNSPACED = re.compile(
    "(CJK|IDEOGRAPHIC|FULLWIDTH|HALFWIDTH|HIRAGANA|KATAKANA(-HIRAGANA)?|THAI|LAO|KHMER|MYANMAR"
    "|JAVANESE|BALINESE|TAI THAM|NEW TAI LUE|TAI VIET) "
)
"""Matches the Unicode name of a character whose script is written without spaces between words."""
JOINERS = "\u200c\u200d"
FAR = 100
"""Distance in characters; if the next white space is farther away, the text is cut elsewhere."""


def words_of(text: str) -> list[str]:
    """Returns the words and marks of a text; see `words_and_marks`."""
    return [word for word, _ in words_and_marks.pre_tokenize_str(text)]


def boundary(text: str, place: int) -> int:
    """Returns the first place, from `place` on, at which a text may be cut in two; at most the text's length.

    A text may be cut at white space, and in a script that is written without spaces before any character. If
    the next white space is farther than `FAR` or missing, as in a long line of code, it may be cut between a
    word and a mark, or, if there is no mark either, as in a genome, before any character.
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
    """Returns the place, moved behind any combining marks there, which belong to the character before."""
    while place < len(text) and _is_mark(text[place]):
        place += 1
    return place


def _is_mark(sign: str) -> bool:
    return unicodedata.category(sign)[0] == "M" or sign in JOINERS
