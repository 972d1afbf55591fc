"""Test sets of restoration are made the same way each time; systems are ranked as the table says."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from speech_peft.audio import io, manifest
from speech_peft.audio.manifest import Row

SCRIPTS = Path(__file__).parents[2] / "scripts"
RATE = 16_000


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def prompts(folder: Path, lang: str) -> list[Row]:
    rows = []
    for number in range(4):
        samples = 0.1 * np.random.default_rng(number).standard_normal((1 + number) * RATE).astype(np.float32)
        io.save(folder / lang / f"p{number}.flac", samples, RATE)
        seconds = len(samples) / RATE
        rows.append(Row(f"p{number}", folder / lang / f"p{number}.flac", duration=seconds, lang=lang))
    return rows


def test_a_set_is_the_same_each_time_and_its_clean_recordings_are_the_prompts(script, tmp_path):
    sets = script("restoration_sets")
    rows = prompts(tmp_path / "prompts", "fr")
    chosen = sets.choose(rows, 2, "noise")
    assert chosen == sets.choose(rows[::-1], 2, "noise")
    assert all(row.duration >= 2 for row in chosen)
    made = []
    for name in ("one", "two"):
        written = sets.write_set(chosen, sets.SETS["noise"], tmp_path / name / "held_out/noise.jsonl", rows)
        made.append(manifest.read(written.path))
    for row, one, two in zip(chosen, *made, strict=True):
        assert one.audio.read_bytes() == two.audio.read_bytes()
        assert one.target_audio.read_bytes() == row.audio.read_bytes()
        assert one.id == f"fr/{row.id}"
        (drawn,) = json.loads(one.extra["degradation"])
        assert 0 <= drawn["snr"] <= 10


def test_no_prompt_of_the_held_out_voice_is_trained_on(script, tmp_path, monkeypatch):
    sets = script("restoration_sets")
    found = {}
    for lang in sets.LANGUAGES:
        rows = prompts(tmp_path / "prompts", lang)
        found[lang] = {"train": rows[:1], "valid": rows[1:2], "test": rows[2:]}
    monkeypatch.setattr(sets, "prompts", lambda folder: found)
    monkeypatch.setattr(sets, "SETS", {"noise": sets.SETS["noise"]})
    sets.main(tmp_path / "out", noise=None, clips=3, known=2, seed=1)
    trained = [row for part in ("train", "valid") for row in manifest.read(tmp_path / f"out/{part}.jsonl")]
    assert {row.lang for row in trained} == set(sets.LANGUAGES) - {sets.HELD_OUT}
    unheard = manifest.read(tmp_path / "out/held_out/noise.jsonl")
    assert {row.lang for row in unheard} == {sets.HELD_OUT}
    known = manifest.read(tmp_path / "out/known/noise.jsonl")
    assert not {row.id for row in known} & {row.id for row in trained}


def test_ranks_leave_out_the_input_and_the_clean_and_know_which_way_is_better(script):
    table = script("compare_restorers")
    values = {
        "degraded": {"estoi": 0.9, "wer_ratio": 1.0},
        "clean": {"estoi": 1.0, "wer_ratio": 0.1},
        "ours": {"estoi": 0.7, "wer_ratio": 0.9},
        "gate": {"estoi": 0.8, "wer_ratio": 1.5},
        "other": {"estoi": 0.7, "wer_ratio": None},
    }
    assert [table.rank(values, name, "estoi") for name in values] == [None, None, 2, 1, 2]
    assert [table.rank(values, name, "wer_ratio") for name in values] == [None, None, 1, 2, None]
