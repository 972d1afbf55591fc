"""adapt-words: what is trained on and validated on, and that a recipe gets it."""

from types import SimpleNamespace

import numpy as np
import pytest

from speech_peft.audio import io, manifest
from speech_peft.audio.manifest import Row
from speech_peft.cli import adapt_words
from speech_peft.prepare.corpora import speak

RATE = 16_000


def clips(folder, number, text, speakers=("a",)):
    found = []
    for place in range(number):
        path = folder / f"{text.split()[0]}{place}.wav"
        found.append(Row(path.stem, path, 0.0, 1.0, text, None, speakers[place % len(speakers)], "en"))
    return found


def test_synthetic_voices_are_apart_and_real_speech_has_its_share(tmp_path):
    said = clips(tmp_path, 60, "spoken word", [f"voice{n}" for n in range(20)])
    real = clips(tmp_path, 500, "real speech")
    parts = adapt_words.mixed(said, real, [], 2.0, seed=0)
    voices = {
        name: {row.speaker for row in rows if row.text == "spoken word"} for name, rows in parts.items()
    }
    assert len(voices["valid"]) == 3
    assert not voices["train"] & voices["valid"]
    synthetic = sum(row.text == "spoken word" for row in parts["train"])
    assert len(parts["train"]) - synthetic == pytest.approx(2 * synthetic, abs=1)
    heard_twice = {row.id for row in parts["train"]} & {row.id for row in parts["valid"]}
    assert not heard_twice
    first = [row.text == "spoken word" for row in parts["train"][: len(said)]]
    assert 0 < sum(first) < len(first)  # shuffled, as neighbours are joined
    given = adapt_words.mixed(said, real, clips(tmp_path, 5, "held out"), 0.0, seed=0)
    assert {row.text for row in given["train"]} == {"spoken word"}
    assert sum(row.text == "held out" for row in given["valid"]) == 5


class Voice:
    sample_rate = RATE

    def __init__(self, name):
        self.name = name

    def say(self, text):
        return np.full(RATE, 0.1, np.float32)


def test_words_and_real_speech_become_the_manifests_of_the_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        speak, "open_voices", lambda engine, asked: [Voice(f"v{n}") for n in range(asked.number)]
    )
    ran = []

    def train(stages):
        ran.extend(stages.values())
        return SimpleNamespace(scores=None, steps=7, seconds=1.0, folders=[tmp_path / "run" / "words"])

    monkeypatch.setattr("speech_peft.train.stages.run", train)
    (tmp_path / "words.txt").write_text("Floda\nlederhosen\n")
    for row in (real := clips(tmp_path, 80, "real speech")):
        io.save(row.audio, np.zeros(RATE, np.float32), RATE)
    manifest.write(tmp_path / "real.jsonl", real)
    told = [str(tmp_path / "words.txt"), "--data", str(tmp_path / "real.jsonl"), "-o", str(tmp_path / "run")]
    assert adapt_words.main([*told, "--voices", "4", "--each", "5", "optim.lr=2e-4"]) == 0
    (recipe,) = ran
    assert recipe.optim.lr == 2e-4
    rows = manifest.read(recipe.data.train)
    assert all(row.audio.exists() for row in rows)
    assert {row.speaker for row in rows if row.id.startswith("spoken/")} < {"v0", "v1", "v2", "v3"}
    assert "adapter: " in capsys.readouterr().out
    manifest.write(tmp_path / "real.jsonl", [Row("x", real[0].audio)])
    assert adapt_words.main([*told, "--voices", "4", "--each", "5"]) == 2
    assert "no row with a text" in capsys.readouterr().err
