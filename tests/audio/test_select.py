"""Rows chosen by their columns; a misspelt choice is an error and never an empty set."""

from pathlib import Path

import pytest

from speech_peft.audio import manifest
from speech_peft.audio.manifest import Row
from speech_peft.errors import ConfigError

ROWS = [
    Row("a", Path("a.wav"), speaker="theo", extra={"fold": 1}),
    Row("b", Path("b.wav"), speaker="lucas", extra={"fold": "2"}),
    Row("c", Path("c.wav"), extra={"fold": 3}),
]


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({}, "abc"),
        ({"fold": [1, 2]}, "ab"),
        ({"fold": ["1", 3]}, "ac"),
        ({"fold": 3}, "c"),
        ({"speaker": "theo"}, "a"),
        ({"fold": [1, 2], "speaker": ["lucas"]}, "b"),
    ],
)
def test_rows_hold_one_of_the_values_in_every_column(wanted, ids):
    assert "".join(row.id for row in manifest.where(ROWS, wanted, "m.jsonl")) == ids


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"flod": [1]}, "m.jsonl: no row has a column 'flod'. Did you mean 'fold'"),
        ({"text": ["x"]}, "no row has a column 'text'"),
        ({"fold": [1, 5]}, "m.jsonl: no row has fold 5; it holds 1, 2, 3"),
        ({"fold": [3], "speaker": ["theo"]}, "at once"),
    ],
)
def test_choice_that_cannot_be_meant_is_an_error(wanted, message):
    with pytest.raises(ConfigError, match=message):
        manifest.where(ROWS, wanted, "m.jsonl")
