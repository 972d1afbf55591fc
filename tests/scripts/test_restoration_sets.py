"""Test sets of restoration are made the same way each time; systems are ranked as the table says."""

import importlib
import json
from pathlib import Path

import numpy as np
import pytest

from speech_peft.audio import io, manifest
from speech_peft.audio.manifest import Row
from speech_peft.errors import ConfigError
from speech_peft.restore.guard import Guard, GuardOptions, Limits
from speech_peft.restore.witnesses import Words

SCRIPTS = Path(__file__).parents[2] / "scripts"
RATE = 16_000


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


class Deaf:
    """A guard that hears whatever it is told."""

    def __init__(self, *texts: str):
        self.texts = list(texts)

    name, multilingual, limit = "told", True, 0.5

    def __call__(self, clips, languages=None):
        if languages is None:  # as the one who knows voices
            return np.ones(4, np.float32)
        return [Words(self.texts.pop(0), -0.1, language="en") for _ in clips]


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
        # Not the bytes: a float WAV says in which second it was written.
        assert io.load(one.audio).samples.tolist() == io.load(two.audio).samples.tolist()
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
    sets.main(tmp_path / "out", noise=None, clips=3, known=2, calibrate=2, seed=1)
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


def test_limits_are_set_on_training_prompts_alone(script, tmp_path):
    sets, calibrate = script("restoration_sets"), script("calibrate_guard")
    learned, tested = prompts(tmp_path / "learned", "en")[2:], prompts(tmp_path / "tested", "fr")[1:2]
    manifest.write(tmp_path / "train.jsonl", learned)
    for rows, name in ((learned, "calibrate"), (tested, "held_out")):
        sets.write_set(rows, sets.SETS["clip"], tmp_path / name / "clip.jsonl", rows)
    own, others = (manifest.read(tmp_path / name / "clip.jsonl") for name in ("calibrate", "held_out"))
    calibrate.trained_only([own], tmp_path / "train.jsonl")
    with pytest.raises(ConfigError, match="limits are set on training data alone"):
        calibrate.trained_only([own, others], tmp_path / "train.jsonl")
    with pytest.raises(ConfigError, match="--train"):
        calibrate.main([tmp_path / "calibrate/clip.jsonl"], None, tmp_path / "guard.jsonl")
    about = calibrate.about([tmp_path / "calibrate/clip.jsonl"], tmp_path / "train.jsonl", 6)
    assert len(about["data"]) == 2
    assert about["limits"]["confidence"] == Limits().confidence


def test_a_guard_is_not_judged_by_its_own_recogniser_and_english_ears_hear_english(script):
    compare = script("compare_restorers")
    with pytest.raises(ConfigError, match="cannot judge a guard"):
        compare.apart("pkg:a/b", "pkg:a/b", "full")
    for judge, guard in (("pkg:a/b", "sound"), ("moonshine", "full")):
        compare.apart(judge, "pkg:a/b", guard)
    compare.english_only({Path("a.jsonl"): [Row("a", Path("a.wav"), lang="en")]})
    with pytest.raises(ConfigError, match="'fr'"):
        compare.english_only({Path("a.jsonl"): [Row("a", Path("a.wav"), lang="fr")]})
    sets = [Path("noise.jsonl"), Path("recorded_noise.jsonl"), Path("clip.jsonl")]
    assert [path.stem for path in compare.leading(sets)] == ["recorded_noise", "noise", "clip"]


def test_the_guard_wraps_the_files_of_any_system(script, tmp_path, monkeypatch):
    wrap = script("guarded")
    monkeypatch.setattr(
        wrap.chunks, "detector", lambda name: lambda samples: np.ones(len(samples) // 512 + 1)
    )
    monkeypatch.setattr("speech_peft.restore.guard.lost_speech", lambda before, after: 0.0)
    came = (0.1 * np.random.default_rng(0).standard_normal(2 * RATE)).astype(np.float32)
    made = np.convolve(came, [0.5, 0.5], "same").astype(np.float32)
    same = Guard(None, Deaf(), Deaf(*["one two"] * 2))
    passed, result = wrap.kept(came, made, same)
    assert (result.strength, result.guard.taken) == (1.0, "asked")
    assert np.square(passed).sum() == pytest.approx(np.square(came).sum(), rel=0.01)  # as loud as it came
    assert np.corrcoef(passed, made)[0, 1] > 0.999
    other = Guard(None, Deaf(), Deaf("one two three four", *["nothing of the kind at all"] * 3))
    kept, result = wrap.kept(came, made, other)
    assert (result.strength, result.guard.taken) == (0.0, "input")
    np.testing.assert_array_equal(kept, came)
    short, result = wrap.kept(came, made[:-100], Guard(None, Deaf(), Deaf("one two")))
    assert "length" in result.guard.trials[0].failed
    assert len(short) == len(came)


def test_what_was_measured_is_measured_again_when_code_or_limits_are_others(script, tmp_path, monkeypatch):
    compare = script("compare_restorers")
    (row,) = prompts(tmp_path, "fr")[:1]
    made = compare.Made("gate", {row.id: row.audio}, {}, {}, {row.id: 0.1}, 0.1, {})
    monkeypatch.setattr(compare, "METRICS", "length")
    monkeypatch.setattr(compare, "guarded", lambda made, rows, guard, folder: made)
    monkeypatch.setattr(compare, "identity", lambda address: address)
    asked = []

    def run(limits: float = 0.02, weights: str = "a") -> int:
        guard = Guard(GuardOptions(limits=Limits(confidence=limits)), Deaf(), Deaf())
        bench = compare.Bench(compare.Settings(), "none", guard, weights, tmp_path)
        before = len(asked)
        bench.both(tmp_path / "gate", [row], lambda: asked.append(1) or made)
        return len(asked) - before

    assert [run(), run()] == [1, 0]
    assert run(limits=0.1) == 1  # the guarded column alone, of files that are made again
    assert run(limits=0.1, weights="b") == 1
    monkeypatch.setattr(compare, "CODE", compare.CODE[1:])
    assert [run(limits=0.1, weights="b"), run(limits=0.1, weights="b")] == [1, 0]
