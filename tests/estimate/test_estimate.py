"""What all takes is what a minute took, times how much more there is."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from speech_peft.audio import io
from speech_peft.errors import ConfigError
from speech_peft.estimate.measured import Prices, Sample, Speed, estimate, measured, sampled
from tests.shards.made import SUFFIXES, upper


def rows(folder, lengths):
    names = []
    for number, seconds in enumerate(lengths):
        io.save(folder / f"{number}.wav", np.zeros(round(16_000 * seconds), np.float32), 16_000)
        names.append(json.dumps({"id": f"row-{number:04}", "audio": f"{number}.wav"}) + "\n")
    (folder / "rows.jsonl").write_text("".join(names))
    return str(folder / "rows.jsonl")


def test_a_sample_comes_from_all_over_the_manifest(tmp_path):
    found = sampled([rows(tmp_path, [0.1] * 60 + [0.3] * 60)], SUFFIXES, 4.0)
    assert 4.0 <= found.seconds < 4.5
    assert {int(job.relpath[-4:]) // 60 for job in found.jobs} == {0, 1}
    assert found.hours == pytest.approx(120 * 0.2 / 3600, rel=0.15)


def test_hours_machines_bytes_and_money_follow_from_the_speed():
    sample = Sample((None,) * 10, seconds=100.0, bytes=3_200_000, rows=36_000)  # type: ignore[arg-type]
    speed = Speed(audio_seconds=100.0, work_seconds=5.0, opening_seconds=9.0, bytes_out=1000, failed=0)
    found = estimate(sample, speed, Prices(2.0, 0.03, 0.1), processes=2, days=1.0)
    assert (found.audio_hours, found.rtfx, found.process_hours, found.machine_hours) == (
        100.0,
        20.0,
        5.0,
        2.5,
    )
    assert found.machines == 1
    assert found.gigabytes_in == pytest.approx(11.52)
    assert found.money == pytest.approx(5.0 + 1.152 + (11.52 + 0.0036) * 0.03 / 30)
    assert found.money_per_thousand_hours == pytest.approx(10 * found.money)
    assert estimate(sample, speed, Prices(), days=1.0, hours=1e6).machines == 2084


def test_what_is_measured_is_what_the_model_did(tmp_path):
    sample = sampled([rows(tmp_path, [0.1] * 5)], SUFFIXES, 1.0)
    speed = measured(sample, lambda: (SimpleNamespace(notes=[]), upper))
    assert (speed.audio_seconds, speed.bytes_out, speed.failed) == (5.0, 40, 0)
    with pytest.raises(ConfigError, match="none of the rows"):
        measured(sample, lambda: (None, lambda jobs: iter(())))
