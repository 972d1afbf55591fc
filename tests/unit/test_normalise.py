"""Normalisers: what each keeps, and that its name is pinned to what it does."""

import subprocess
import sys

import pytest

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
