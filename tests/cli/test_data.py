"""`speech-peft data`: pages of pairs with players, and one manifest of several."""

import json

import numpy as np
import pytest
import yaml

from speech_peft.audio import io
from speech_peft.cli import data as data_cli
from speech_peft.cli import main as cli

RATE = 16_000


@pytest.fixture
def recipe(tmp_path):
    """A recipe over six clips, one of which is not audio."""
    lines = []
    for number in range(6):
        tone = 0.1 * np.sin(2 * np.pi * (200 + 40 * number) * np.arange(RATE // 2) / RATE)
        io.save(tmp_path / f"c{number}.wav", tone.astype(np.float32), RATE)
        lines.append(
            json.dumps({"audio_filepath": f"c{number}.wav", "text": "<b>hello</b>", "id": f"c{number}"})
        )
    (tmp_path / "c3.wav").write_bytes(b"no audio")
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    tree = {
        "out": str(tmp_path / "run"),
        "backbone": {"name": "whisper", "weights": "nowhere"},
        "adapters": {"a": {"method": "bottleneck"}},
        "task": {"name": "asr", "decoder": "whisper"},
        "data": {
            "train": str(tmp_path / "train.jsonl"),
            "degrade": [{"kind": "noise", "snr": 5}, {"kind": "babble", "snr": 5}],
        },
        "trainer": {"max_steps": 1},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return path


def test_the_page_has_both_of_every_clip_and_the_reason_where_there_is_none(recipe, tmp_path):
    page = tmp_path / "page.html"
    assert cli.main(["data", "preview", str(recipe), "-n", "6", "-o", str(page)]) == 0
    text = page.read_text()
    assert text.count("data:audio/mpeg") == text.count("data:image/png") == 2 * 5
    assert "c3.wav" in text
    assert "<b>noise</b>" in text
    assert "snr 5" in text
    assert "voices" in text


def test_overrides_reach_the_degradation_and_fewer_clips_are_spread(recipe, tmp_path):
    page = tmp_path / "page.html"
    assert data_cli.main(["preview", str(recipe), "data.degrade=[]", "-n", "2", "-o", str(page)]) == 0
    text = page.read_text()
    assert "left clean" in text
    assert text.count("data:audio/mpeg") == 2  # of c0; c3 is not audio
    assert data_cli.spread(6, 2) == [0, 3]
    assert data_cli.spread(3, 20) == [0, 1, 2]


def test_a_page_is_what_training_hears(recipe):
    from speech_peft.audio import manifest
    from speech_peft.bench.own_files import Others
    from speech_peft.recipe import config
    from speech_peft.train.data.clips import Clips

    chosen = config.read(str(recipe))
    rows, degrader = manifest.read(chosen.data.train), config.degrader_of(chosen)
    rows = [row for row in rows if row.id != "c3"]
    heard = Clips(rows, RATE, degrader)[2, 1].example.samples
    given = io.load(rows[1].audio, RATE).samples
    mine = degrader(given, RATE, id=rows[1].id, epoch=2, pool=Others(rows, 1)).samples
    assert np.array_equal(heard, mine)


def test_manifests_of_two_folders_become_one_that_finds_all_recordings_by_ids_of_their_own(tmp_path):
    from speech_peft.audio import manifest

    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        io.save(tmp_path / folder / "x.wav", np.zeros(RATE, np.float32), RATE)
        row = {"id": "x", "audio": "x.wav", "text": folder, "speaker": folder}
        (tmp_path / folder / "m.jsonl").write_text(json.dumps(row) + "\n")
    out = tmp_path / "deep" / "both.jsonl"
    assert cli.main(["data", "join", *(str(tmp_path / f / "m.jsonl") for f in "ab"), "-o", str(out)]) == 0
    rows = manifest.read(out)
    assert [(row.id, row.text, row.speaker) for row in rows] == [("x", "a", "a"), ("x-2", "b", "b")]
    assert all(row.audio.exists() for row in rows)
