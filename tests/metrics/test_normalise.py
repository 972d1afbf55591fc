"""Normalisers: what each keeps, and that its name is pinned to what it does."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_peft.errors import ConfigError
from speech_peft.metrics.normalise import NAMES, language_code, normaliser


def test_none_changes_nothing_but_white_space():
    assert normaliser("none")("  It's\tFINE. ") == "It's FINE."


def test_basic_drops_case_symbols_and_brackets():
    assert normaliser("basic")("Hello, <unk> (cough) WORLD-wide!") == "hello world wide"


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("It's Mr. Gray", "it is mister gray"),
        ("twenty-one", "21"),
        ("I can't", "i can not"),
        ("two hundred and three", "203"),
        ("um the colour", "the color"),
    ],
)
def test_english_forms_of_one_thing_become_equal(said, written):
    assert normaliser("whisper-en")(said) == normaliser("whisper-en")(written)


@pytest.mark.parametrize(
    ("language", "text"),
    [("hi", "नमस्ते दुनिया"), ("th", "สวัสดีครับ"), ("ar", "مَرْحَبًا"), ("ta", "வணக்கம்"), ("", "नमस्ते")],
)
def test_auto_keeps_every_combining_mark_outside_latin(language, text):
    assert normaliser("auto")(text + "!", language) == text
    assert normaliser("basic")(text) != text or language == "ar"


def test_auto_reads_english_as_english_and_nothing_else():
    auto = normaliser("auto")
    assert auto("St. John's", "en-US") == "saint john is"
    assert auto("St. Gallen", "de") == "st gallen"
    assert auto("St. Gallen") == "st gallen"


@pytest.mark.parametrize("name", NAMES)
def test_every_normaliser_is_idempotent_versioned_and_survives_the_empty_text(name):
    rule = normaliser(name)
    once = rule("It's the 1st CALL, for 5 Dollars!", "en")
    assert rule.id == name
    assert rule.version
    assert rule(once, "en") == once
    assert rule("", "en") == ""
    assert rule(" .,! ", "en") == (".,!" if name == "none" else "")


def test_unknown_normaliser_names_the_nearest():
    with pytest.raises(ConfigError, match="whisper-en"):
        normaliser("whisper_en")


@pytest.mark.parametrize(
    ("said", "heard", "same"),
    [
        ("it costs one dollar", "it costs one", False),
        ("three point one", "3.1", True),
        ("three point one", "three one", False),
        ("one point five litres", "1.5 liters", True),
        ("one percent", "one", False),
        ("minus one", "-1", True),
        ("version 1.10.1", "version one ten one", False),
        ("a 20mm gun", "a 20 mm gun", True),
        ("thirty six members", "36 members", True),
        ("one hundred twenty three", "123", True),
        ("nineteen ninety nine", "1999", True),
        ("double oh seven", "007", True),
        ("it's 5 o'clock", "it is five oclock", True),
        ("one million two hundred thousand", "1,200,000", True),
        ("$1", "one dollar", True),
        ("$2", "two dollars", True),
        ("june third", "june 3rd", True),
        ("twenty twenty four", "2024", True),
        ("one oh one", "101", True),
        ("zero point five", "0.5", True),
        ("point five", ".5", True),
        ("minus five dollars", "-$5", True),
        ("minus five dollars", "five dollars", False),
        ("five percent", "5 %", True),
        ("fifty cents", "$0.50", True),
        ("two dollars and seven cents", "$2.07", True),
        ("five euros now", "5€ now", True),
        ("twenty mm", "20mm", True),
        ("twenty mm", "twenty", False),
        ("mm yes um", "yes", True),
        ("O’Brien isn’t in", "o'brien is not in", True),
        ("archaeology", "archeology", True),
    ],
)
def test_english_numbers_keep_their_units_signs_and_zeros(said, heard, same):
    rule = normaliser("english")
    assert (rule(said) == rule(heard)) == same
    assert rule(rule(said)) == rule(said)


_WORDS = (
    *("one", "oh", "zero", "five", "ten", "twelve", "twenty", "hundred", "million", "third", "tenths"),
    *("point", "and", "double", "minus", "dollars", "cents", "percent", "per", "mm", "a half", "o'clock"),
    *("7", "007", "1.5", "1,000", "$2", "5€", "-3", "+4", ".5", "20%", "1.10.1", "½", "x2", "’s", "the"),
)


@given(st.lists(st.sampled_from(_WORDS), max_size=8).map(" ".join))
def test_english_survives_any_row_of_numbers(text):
    assert isinstance(normaliser("english")(text), str)


@pytest.mark.parametrize(("british", "american"), [("manoeuvre", "maneuver"), ("jewellery", "jewelry")])
@pytest.mark.parametrize("name", ["whisper-en", "english"])
def test_whispers_whole_table_of_spellings_is_used(name, british, american):
    assert normaliser(name)(british) == american


def test_a_normaliser_says_which_rule_a_language_meets():
    assert [normaliser("auto").meets(code) for code in ("en-GB", "de", "")] == ["english", "marks", "marks"]
    assert normaliser("basic").meets("en") == "basic"


def test_language_codes_lose_region_and_case():
    assert [language_code(code) for code in ("EN-us", "en_GB", "English", "", "yue")] == [
        "en",
        "en",
        "en",
        "",
        "yue",
    ]


def test_english_normaliser_does_not_load_torch():
    code = (
        "import sys; from speech_peft.metrics.normalise import normaliser; "
        "normaliser('whisper-en')('a'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
