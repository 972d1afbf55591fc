"""Classifications as files that other programs read."""

import csv
import io
import json

import numpy as np
import pytest

from speech_peft.classify import writers as label_writers
from speech_peft.classify.result import Classified, ClassifyOptions, Heard, Scored
from speech_peft.classify.writers import render, rows
from speech_peft.errors import ConfigError
from speech_peft.folders import formats

LABELS = ("dog", "rain, heavy", 'the "baby"')


def scored(start: float, end: float, *probabilities: float) -> Scored:
    return Scored(start, end, np.array(probabilities, np.float32))


def result(windows: int = 2) -> Classified:
    heard = tuple(scored(5.0 * i, 5.0 * i + 10, 0.1 * i, 0.2, 0.7 - 0.1 * i) for i in range(windows))
    mean = np.stack([window.probabilities for window in heard]).mean(0)
    by_name = {name: Heard(name, LABELS, mean, heard) for name in ("pets", "alarms")}
    return Classified(
        'in/a "b",\n.wav', "a", by_name, duration=5.0 * windows + 5, seconds=0.1, about={"model": "m"}
    )


def test_a_short_recording_has_one_row_for_each_adapter():
    found = list(rows(result(windows=1), 5))
    assert [(row["adapter"], row["span"], row["start"], row["end"]) for row in found] == [
        ("pets", "clip", 0.0, 10.0),
        ("alarms", "clip", 0.0, 10.0),
    ]


def test_a_long_recording_has_its_timeline_behind_it():
    found = [row for row in rows(result(windows=3), 1) if row["adapter"] == "pets"]
    assert [(row["span"], row["start"], row["end"]) for row in found] == [
        ("clip", 0.0, 20.0),
        ("window", 0.0, 10.0),
        ("window", 5.0, 15.0),
        ("window", 10.0, 20.0),
    ]
    assert [row["top"][0][0] for row in found] == ['the "baby"'] * 4


def test_top_is_sorted_and_no_longer_than_asked_or_than_there_are_labels():
    assert [label for label, _ in result().heard["pets"].top(2)] == ['the "baby"', "rain, heavy"]
    assert len(result().heard["pets"].top(9)) == 3


def test_csv_reads_back_as_it_was_whatever_the_names_hold():
    table = list(csv.DictReader(io.StringIO(render(result(), "csv", 2))))
    assert len(table) == 6
    assert table[0]["audio_filepath"] == 'in/a "b",\n.wav'
    assert [table[0][name] for name in ("label_1", "label_2")] == ['the "baby"', "rain, heavy"]
    assert float(table[0]["probability_1"]) == pytest.approx(0.65)
    assert "label_3" not in table[0]


def test_no_cell_of_a_csv_is_a_formula():
    heard = Heard("@x", ("=HYPERLINK(1)", "-5 dB", "rain"), np.array([0.5, 0.3, 0.2], np.float32), ())
    named = Classified("+in/a.wav", "=1+1", {"@x": heard}, duration=1.0)
    (row,) = csv.DictReader(io.StringIO(render(named, "csv", 3)))
    assert not [cell for cell in row.values() if cell[:1] in "=+-@\t\r"]
    assert (row["label_1"], row["label_2"], row["label_3"]) == ("'=HYPERLINK(1)", "'-5 dB", "rain")
    assert row["id"] == "'=1+1"


def test_jsonl_has_the_rows_and_json_has_them_by_adapter():
    lines = [json.loads(line) for line in render(result(), "jsonl", 3).splitlines()]
    assert lines == list(rows(result(), 3))
    whole = json.loads(render(result(), "json", 3))
    assert whole["adapters"]["pets"]["top"] == lines[0]["top"]
    assert [w["top"] for w in whole["adapters"]["pets"]["windows"]] == [line["top"] for line in lines[1:3]]
    assert whole["model"] == "m"


def test_formats_are_those_of_classifications():
    known = tuple(label_writers.WRITERS)
    assert formats.formats(["all"], known) == ("csv", "json", "jsonl")
    with pytest.raises(ConfigError, match="srt"):
        formats.formats(["srt"], known)


@pytest.mark.parametrize(
    "fields",
    [
        {"window_seconds": 0},
        {"window_seconds": float("nan")},
        {"hop_seconds": -1},
        {"hop_seconds": 11},
        {"top_k": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(fields):
    with pytest.raises(ConfigError):
        ClassifyOptions(**fields)


def test_the_hop_is_half_a_window_unless_it_is_given():
    assert ClassifyOptions(window_seconds=3).hop == 1.5
    assert ClassifyOptions(window_seconds=3, hop_seconds=3).hop == 3
