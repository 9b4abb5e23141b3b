"""Words of text in any script, and the places where a text may be cut."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.sources import read_documents, read_samples

from fedtlu_fast.build.data import load_federation
from fedtlu_fast.config.settings import parse_config
from fedtlu_fast.data.documents import SECTION_CHARACTERS
from fedtlu_fast.data.tokenizing import WordTokenizer
from fedtlu_fast.data.words import FAR, LONGEST, boundary, words_of

SENTENCES = {
    "Hindi": "हिन्दी विश्व की एक प्रमुख भाषा है",
    "Bengali": "আমার সোনার বাংলা",
    "Tamil": "தமிழ் மொழி மிகவும் பழமையானது",
    "Malayalam, with joiners": "മലയാളം ന\u0d4d\u200d ഭാഷ",
    "Sinhala, with joiners": "ශ්\u200dරී ලංකා",
    "Thai": "ภาษา ไทย สวยงาม น้ำ",
    "Khmer": "ភាសា ខ្មែរ",
    "Burmese": "မြန်မာ ဘာသာ",
    "Arabic, with vowels": "السَّلَامُ عَلَيْكُمْ وَرَحْمَةُ",
    "Persian, with non-joiners": "می\u200cخواهم بروم",
    "Hebrew, with points": "בְּרֵאשִׁית בָּרָא אֱלֹהִים",
    "Vietnamese, decomposed": unicodedata.normalize("NFD", "Tiếng Việt có nhiều dấu"),
    "Korean, decomposed": unicodedata.normalize("NFD", "한국어 문장"),
    "German, decomposed": unicodedata.normalize("NFD", "Größe Ångström"),
    "emoji": "👨\u200d👩\u200d👧 ❤\ufe0f 👍🏽 🇩🇪 1\ufe0f\u20e3",
}


@pytest.mark.parametrize("line", SENTENCES.values(), ids=SENTENCES)
def test_marks_are_part_of_words_in_every_script_and_task(tmp_path, line):
    assert words_of(line) == line.split()
    assert len(WordTokenizer([line], 100).encode(line)) == len(line.split())
    path = tmp_path / "t.csv"
    path.write_text("label,text\n" + "".join(f"{label},{line}\n" for label in "ab" * 20), encoding="utf-8")
    settings = parse_config({"task": "text_classification", "data": {"source": f"texts:{path}"}})
    assert read_samples(settings).train[0].shape[1] == len(line.split())


def test_words_without_spaces_between_them():
    assert words_of("我爱北京，天安门。") == list("我爱北京，天安门。")
    decomposed = unicodedata.normalize("NFD", "ガラスです")
    assert len(words_of(decomposed)) == 5
    assert words_of("ภาษาไทย") == ["ภาษาไทย"]
    phrase = "ภาษาไทยเป็นภาษาที่สวยงามมาก"
    assert len(phrase) > LONGEST
    assert "".join(words_of(phrase)) == phrase
    assert len(words_of(phrase)) > LONGEST, "a phrase is cut into its characters"
    assert not any(unicodedata.category(word[0]) == "Mn" for word in words_of(phrase))
    assert len(words_of("ꦧꦱꦗꦮ" * 10)) == 40


def test_english_is_cut_into_words_and_marks():
    assert words_of("don't  x_1==y!\n\u00e9t\u00e9 3,5") == [
        "don", "'", "t", "x_1", "=", "=", "y", "!", "\u00e9t\u00e9", "3", ",", "5",
    ]  # fmt: skip


@given(st.text(max_size=60))
def test_only_white_space_is_lost(text):
    assert "".join("".join(words_of(text)).split()) == "".join(text.split())


@given(st.text("ab \n,กั้中", max_size=60), st.integers(0, 60))
def test_a_boundary_is_in_the_text_and_splits_no_word(text, place):
    place = min(place, len(text))
    cut = boundary(text, place)
    assert place <= cut <= len(text)
    if 0 < cut < len(text):
        assert unicodedata.category(text[cut])[0] != "M"
        assert not (text[cut - 1] in "ab" and text[cut] in "ab")


def test_near_white_space_is_the_boundary():
    assert boundary("one two three", 5) == 7
    assert boundary("one two", 5) == 7
    assert boundary("a,b;" * FAR + " ", 6) == 6
    assert boundary("我爱北京天安门", 4) == 4
    assert boundary("กั้กั้", 1) == 3
    assert boundary("acgt" * FAR, 7) == 7, "neither white space nor a mark: anywhere"
    assert boundary("a" + "\u0301" * 9000, 1) == 9001


@pytest.mark.parametrize("alphabet", ["天地玄黄宇宙洪荒，", "กขคงจฉชซาิีั้", "あいうえおカキクケ。", "a,b.c;"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_test_is_cut_from_few_long_texts_without_spaces(tmp_path, alphabet, whole):
    text = (alphabet * 3000)[:9000]
    names = ["one.txt"] if whole else [f"{name}.txt" for name in "abcd"]
    for name in names:
        (tmp_path / name).write_text(text * (4 if whole else 1), encoding="utf-8")
    source = f"text:{tmp_path / 'one.txt' if whole else tmp_path}"
    if whole:
        sizes = [len(document.text) for document in read_documents(source)]
        assert min(sizes) >= SECTION_CHARACTERS
        assert len(sizes) in (8, 9)
    data = load_federation(parse_config({"clients": 4, "cohort": 2, "data": {"source": source}}))
    trained = sum(len(data.population.train(client)) for client in range(4))
    assert len(data.population.test[0]) > trained / 20
