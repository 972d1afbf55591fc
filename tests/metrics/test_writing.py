"""Scripts without spaces, told from the text."""

import pytest

from speech_peft.metrics.writing import joined, stands_alone, unspaced, without_spaces


@pytest.mark.parametrize("text", ["今天", "はい", "สวัสดี", "ສະບາຍດີ", "សួស្តី", "မင်္ဂလာပါ", "བོད་ཡིག"])
def test_scripts_without_spaces_are_known(text):
    assert stands_alone(text)
    assert unspaced([text])
    assert without_spaces(f"{text} {text}") == text * 2
    assert joined([text, text]) == text * 2


@pytest.mark.parametrize("text", ["hello", "안녕하세요", "नमस्ते", "مرحبا", "привет", "xin chào", "1984"])
def test_scripts_with_spaces_keep_them(text):
    assert not unspaced([text])
    assert without_spaces(f"{text} {text}") == f"{text} {text}"
    assert joined([text, "", text]) == f"{text} {text}"


def test_punctuation_of_such_scripts_needs_no_space():
    assert joined(["今天。", "「明天」", "Python 3", "好"]) == "今天。「明天」Python 3好"
    assert joined(["Is it?", "Yes."]) == "Is it? Yes."


def test_most_letters_decide():
    assert unspaced(["我用 Python 写程序和文章"])
    assert not unspaced(["the Japanese word 猫 means cat"])
