"""Figures of restoration: known values, what each metric needs, and the reason where there is no figure."""

import sys

import numpy as np
import pytest

from speech_peft.errors import ConfigError
from speech_peft.metrics import metric, restoration, restoration_packages
from speech_peft.metrics.loudness import common, loudness, matched
from speech_peft.metrics.metric import Heard, Sound
from speech_peft.metrics.restoration import chosen, known, measure

RATE = 16_000


def speechlike(seed: int = 0, seconds: float = 2.0, rate: int = RATE) -> np.ndarray:
    generator, time = np.random.default_rng(seed), np.arange(round(seconds * rate)) / rate
    voice = sum(np.sin(2 * np.pi * 130 * n * time + generator.uniform(0, 6)) / n for n in range(1, 20))
    return (0.08 * voice * np.clip(np.sin(2 * np.pi * 3 * time), 0, 1)).astype(np.float32)


def noise(seed: int, like: np.ndarray) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(len(like)).astype(np.float32)


def heard(output, clean=None, given=None, rate=RATE) -> Heard:
    given = output if given is None else given
    return Heard(Sound(output, rate), Sound(given, rate), None if clean is None else Sound(clean, rate))


def figure(name: str, one: Heard) -> float:
    found, reasons = measure(chosen(name), one)
    assert not reasons
    return next(iter(found.values()))


def test_loudness_of_the_standards_own_signals():
    tone = np.sin(2 * np.pi * 997 * np.arange(3 * 48_000) / 48_000).astype(np.float32)
    assert loudness(tone, 48_000) == pytest.approx(-3.01, abs=0.01)  # BS.1770: 0 dBFS, one channel
    assert loudness(0.1 * tone, 48_000) == pytest.approx(-23.01, abs=0.01)
    assert loudness(4 * tone, 48_000) == pytest.approx(9.03, abs=0.01)  # beyond full scale nothing is cut off
    with_pause = np.concatenate([tone, np.zeros(5 * 48_000, np.float32)])
    assert loudness(with_pause, 48_000) == pytest.approx(-3.01, abs=0.3)  # the gate leaves the pause out
    assert loudness(np.zeros(48_000, np.float32), 48_000) is None
    assert loudness(np.zeros(0, np.float32), 48_000) is None
    assert loudness(tone[:100], 48_000) is not None


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_loudness_hardly_depends_on_the_rate(rate):
    time = np.arange(2 * rate) / rate
    assert loudness(np.sin(2 * np.pi * 997 * time).astype(np.float32), rate) == pytest.approx(-3.0, abs=0.2)


def test_matched_players_are_equally_loud_and_unclipped():
    quiet, loud = 0.05 * speechlike(1), np.clip(9 * speechlike(2), -1, 1)
    level = common([(quiet, RATE), (loud, RATE), (np.zeros(RATE, np.float32), RATE)])
    assert level is not None
    for samples in (quiet, loud):
        same = matched(samples, RATE, level)
        assert loudness(same, RATE) == pytest.approx(level, abs=0.02)
        assert np.abs(same).max() <= 1


def test_si_sdr_is_the_snr_of_orthogonal_noise_at_any_gain():
    clean = speechlike() - speechlike().mean()
    other = noise(1, clean)
    other -= other.mean() + clean * (other @ clean / (clean @ clean))
    other *= np.sqrt(clean @ clean / (other @ other)) * 10 ** (-7 / 20)
    for gain in (1.0, 0.1, -3.0):
        assert figure("si_sdr", heard(gain * (clean + other), clean)) == pytest.approx(7, abs=0.01)
    assert figure("si_sdr", heard(1e-8 * (clean + other), 1e-8 * clean)) == pytest.approx(7, abs=0.01)
    assert figure("si_sdr", heard(clean, clean)) == pytest.approx(120)
    for nothing in (np.zeros_like(clean), np.full_like(clean, 0.1)):
        assert measure(chosen("si_sdr"), heard(nothing, clean))[1] == {
            "si_sdr": "the output holds nothing of the reference"
        }


def test_lsd_is_the_gain_of_a_gain_and_sees_a_missing_band():
    clean = speechlike(rate=48_000, seconds=1.0) + 0.01 * noise(1, np.zeros(48_000))
    clean = clean.astype(np.float32)
    assert figure("lsd", heard(clean, clean, rate=48_000)) == 0
    assert figure("lsd", heard(10 * clean, clean, rate=48_000)) == pytest.approx(2, abs=0.01)
    narrow = Heard(Sound(Sound(clean, 48_000).at(16_000), 16_000), Sound(clean, 48_000), Sound(clean, 48_000))
    assert figure("lsd", narrow) > 1


def test_clipping_counts_full_scale_and_flat_tops_and_no_sine():
    tone = 0.9 * np.sin(2 * np.pi * 100 * np.arange(RATE) / RATE).astype(np.float32)
    assert figure("clipping", heard(tone)) == 0
    assert figure("clipping", heard(np.clip(tone, -0.45, 0.45))) == pytest.approx(66.7, abs=2)
    assert figure("clipping", heard(2 * tone)) > 50


def test_length_and_level_against_the_input():
    given = speechlike()
    assert figure("length", heard(given[:-100], given=given)) == -100
    other_rate = Heard(Sound(np.zeros(88_200, np.float32), 44_100), Sound(given, RATE))
    assert figure("length", other_rate) == 0
    found, _ = measure(chosen("loudness"), heard(0.5 * given, given=given))
    assert found["loudness_change"] == pytest.approx(-6.02, abs=0.01)


def test_a_metric_without_what_it_needs_says_so():
    silent, clean = np.zeros(RATE, np.float32), speechlike()
    found, reasons = measure(chosen("si_sdr,lsd,loudness,clipping"), heard(silent, given=clean))
    assert found == {"clipped": 0}
    assert "no clean reference" in reasons["si_sdr"]
    assert "the output is silent" in reasons["loudness"]


def test_a_missing_package_is_a_reason_and_no_error(monkeypatch):
    why = "the package speechmos is not installed"
    monkeypatch.setattr(restoration_packages, "missing", lambda module: why)
    found, reasons = measure(chosen("dnsmos,estoi,speaker,pesq"), heard(speechlike(), speechlike()))
    assert not found
    assert set(reasons) == {"dnsmos", "estoi", "speaker", "pesq"}
    assert "pip install 'speech_peft[restore]'" in reasons["dnsmos"]


def test_an_error_inside_a_package_is_the_recordings_own_reason(monkeypatch):
    def broken(self, one):
        raise RuntimeError("no such frame")

    monkeypatch.setattr(restoration.LogSpectralDistance, "measure", broken)
    assert measure(chosen("lsd,clipping"), heard(speechlike()))[1] == {"lsd": "RuntimeError: no such frame"}


def test_every_metric_declares_what_it_rests_on_and_pesq_is_asked_for():
    for each in known().values():
        about = each.declaration()
        assert about["figures"]
        assert about["licence"]
        assert about["weights"]
        assert about["needs"] in ("output", "input", "reference", "text")
    assert "pesq" not in {metric.name for metric in chosen()}
    assert "licence" in known()["pesq"].notice
    with pytest.raises(ConfigError, match="Did you mean 'dnsmos'"):
        chosen("dnsmo")


# ---------------------------------------------------------------- with the packages, where they are


def installed(name: str) -> metric.Metric:
    metric = known()[name]
    if (why := metric.unavailable()) is not None:
        pytest.skip(why)
    return metric


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [pytest.param("dnsmos", marks=pytest.mark.slow), "estoi", "pesq"])
def test_noise_lowers_the_figure(name):
    metric = installed(name)
    clean = speechlike(seconds=3.0)
    worse = (clean + 0.1 * noise(1, clean)).astype(np.float32)
    key = next(iter(metric.figures))
    assert metric.measure(heard(worse, clean))[key] < metric.measure(heard(clean, clean))[key]


@pytest.mark.filterwarnings("ignore")
def test_estoi_is_the_packages_own():
    installed("estoi")
    from pystoi import stoi

    clean = speechlike(seconds=3.0)
    worse = (clean + 0.05 * noise(1, clean)).astype(np.float32)
    assert figure("estoi", heard(worse, clean)) == pytest.approx(stoi(clean, worse, RATE, extended=True))
    assert "0.4 s" in measure(chosen("estoi"), heard(worse[:3000], clean[:3000]))[1]["estoi"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.slow  # the package's own imports take ten seconds
def test_a_voice_resembles_itself():
    metric = installed("speaker")
    clean = speechlike(seconds=3.0)
    found = metric.measure(heard(0.5 * clean, clean))
    assert found["speaker_similarity"] == pytest.approx(1, abs=0.01)


def test_a_package_that_cannot_be_imported_says_what_stands_in_its_way(monkeypatch, tmp_path):
    (tmp_path / "old_vad.py").write_text("import pkg_resources_that_is_gone")
    (tmp_path / "hasty.py").write_text("raise OSError('libcu.so: no such file')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert (
        restoration_packages.missing("old_vad") == "the package pkg_resources_that_is_gone is not installed"
    )
    assert "hasty cannot be imported (OSError: libcu.so" in restoration_packages.missing("hasty")
    monkeypatch.setitem(sys.modules, "pkg_resources", None)  # as with setuptools 81
    (tmp_path / "needs_it.py").write_text("import pkg_resources")
    assert "setuptools has no more since 81" in restoration_packages.missing("needs_it")


def test_threads_are_those_asked_for(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert restoration_packages.threads() == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert restoration_packages.threads() >= 1
