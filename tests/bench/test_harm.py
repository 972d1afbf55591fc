"""`bench asr --harm`: what an adapter loses on clean speech of other people, told with every score."""

import json
import re

import numpy as np
import pytest

from speech_peft.audio import io
from speech_peft.bench import __main__ as bench
from speech_peft.bench.evaluate import evaluate
from speech_peft.bench.runs import asr as benchmark
from speech_peft.errors import ConfigError
from speech_peft.transcribe.result import Result

WORDS = {"phone": "press the pound key", "read": "read books aloud"}


class Scripted:
    """The base mishears the telephone, the adapter answers everybody as if it were one."""

    def __init__(self, adapted: bool):
        self.adapted = adapted

    def transcribe(self, inputs):
        for job in inputs:
            kind = re.match("phone|read", job.audio.stem).group()
            said, wrong = WORDS[kind], kind == ("read" if self.adapted else "phone")
            yield Result(str(job.audio), "key" if wrong else said, duration=1.0, seconds=0.1)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with both manifests and an adapter."""
    for name, text in WORDS.items():
        rows = []
        for number in range(2):
            io.save(tmp_path / f"{name}{number}.wav", np.full(16_000, 0.1, np.float32), 16_000)
            rows.append({"audio_filepath": f"{name}{number}.wav", "text": text, "lang": "en"})
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter.json").write_text(json.dumps({"backbone": {"id": "org/model"}}))
    opened = lambda system, settings: Scripted(system.adapter is not None)  # noqa: E731
    monkeypatch.setattr(benchmark, "open_transcriber", opened)
    return tmp_path


def test_what_is_lost_on_clean_speech_of_others_stands_beside_what_is_gained(place, capsys):
    out = place / "out"
    asked = ["asr", "--data", place / "phone.jsonl", "--adapter", place / "adapter", "-o", out]
    assert bench.main([str(word) for word in [*asked, "--harm", place / "read.jsonl"]]) == 0
    found = json.loads((out / "scores.json").read_text())
    assert found["runs"]["adapter"]["wer"]["rate"] == 0
    assert list(found["runs"]) == ["adapter"]
    harm = found["harm"]
    assert (harm["runs"]["base"]["wer"]["rate"], harm["runs"]["adapter"]["wer"]["rate"]) == (0, 1)
    assert [(one["a"], one["b"], one["delta"]) for one in harm["comparisons"]] == [("base", "adapter", 1.0)]
    assert f"on clean speech, {place / 'read.jsonl'}: base → adapter" in capsys.readouterr().out
    assert "Clean speech of other speakers" in (out / "report.html").read_text()
    assert (out / "harm" / "report.html").exists()


def test_the_clean_set_is_not_degraded_with_the_test_set(place):
    found = evaluate(
        place / "phone.jsonl",
        place / "adapter",
        harm=place / "read.jsonl",
        degrade="telephone",
        out=place,
    )
    assert found.scores["harm"]["runs"]["base"]["wer"]["rate"] == 0
    assert not (place / "harm" / "degraded").exists()
    assert (place / "degraded").exists()


def test_the_base_alone_has_nothing_to_be_held_against(place):
    with pytest.raises(ConfigError, match="harm: the base alone"):
        evaluate(place / "phone.jsonl", harm=place / "read.jsonl")
