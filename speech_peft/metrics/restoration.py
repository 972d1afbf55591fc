"""How well speech was restored: figures of one recording, each from a metric that says what it needs.

| metric | figures |
| --- | --- |
| `dnsmos` | DNSMOS P.835: how good speech, background and the whole sound, 1 to 5 |
| `speaker` | cosine of speaker embeddings: with the clean reference, and with the input |
| `estoi` | extended short-time objective intelligibility |
| `si_sdr` | scale-invariant signal-to-distortion ratio (Le Roux et al. 2019, arXiv:1811.02508) |
| `lsd` | log-spectral distance |
| `loudness` | ITU-R BS.1770, and how far it lies from the input's |
| `clipping`, `length` | what a restorer must not do |
| `onsets` | F1 of the beginnings of sounds, to within 50 ms, only when asked for |
| `pesq` | ITU-T P.862.2, only when asked for: its licence |
| `wer`, `rtf` | of a whole run: `bench/runs/restore.py` measures them |

No figure without a reference is to be trusted alone: DNSMOS goes up where words go wrong. A metric whose
package is missing, or which a recording does not suit, gives no figure but the reason.
"""

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import ClassVar

import numpy as np

from ..audio.io import Samples
from ..errors import ConfigError, did_you_mean
from .loudness import loudness
from .metric import Figure, Heard, Metric, NotMeasured
from .onsets import OnsetF1


class SiSdr(Metric):
    """How much of the output is the reference at some gain, over all that is not."""

    name = "si_sdr"
    figures: ClassVar = {"si_sdr": Figure("SI-SDR", "dB", "higher")}
    sample_rate = 16_000
    needs = "reference"
    package = "torchmetrics"
    licence = "Apache-2.0"
    _MOST = 120.0  # dB: beyond, all that is measured is rounding

    def measure(self, heard: Heard) -> dict[str, float]:
        import torch
        from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio

        clean, output, _ = heard.against_reference(self.sample_rate)
        # At unit power, as what is added there against a division by zero would count in soft recordings.
        clean, output = (torch.from_numpy(_unit_power(one)) for one in (clean, output))
        found = float(scale_invariant_signal_distortion_ratio(output, clean))
        if found < -self._MOST or not output.any():
            raise NotMeasured("the output holds nothing of the reference")
        return {"si_sdr": min(found, self._MOST)}


class LogSpectralDistance(Metric):
    """Mean over frames of the root mean squared difference of log10 power spectra; 43 ms windows."""

    name = "lsd"
    figures: ClassVar = {"lsd": Figure("LSD", "log10 power", "lower")}
    needs = "reference"  # at whose rate: what a narrow band lacks counts
    _WINDOW, _HOP = 2048 / 48_000, 512 / 48_000  # seconds: the usual 2048 and 512 at 48 kHz

    def measure(self, heard: Heard) -> dict[str, float]:
        clean, output, rate = heard.against_reference()
        size, hop = round(self._WINDOW * rate), round(self._HOP * rate)
        of_clean, of_output = (_log_power(x, size, hop) for x in (clean, output))
        return {"lsd": float(np.sqrt(np.square(of_clean - of_output).mean(axis=1)).mean())}


class Loudness(Metric):
    """A restorer keeps the level that it was given."""

    name = "loudness"
    figures: ClassVar = {
        "loudness": Figure("loudness", "LUFS", None),
        "loudness_change": Figure("level change", "LU", "near"),
    }
    needs = "input"
    package = "pyloudnorm"
    licence = "MIT"

    def measure(self, heard: Heard) -> dict[str, float]:
        after, before = (loudness(one.samples, one.sample_rate) for one in (heard.output, heard.input))
        if after is None:
            raise NotMeasured("the output is silent" + ("" if before is None else ", the input is not"))
        return {"loudness": after} | ({} if before is None else {"loudness_change": after - before})


class Clipping(Metric):
    """Samples at full scale, or three and more in a row flat at the peak."""

    name = "clipping"
    figures: ClassVar = {"clipped": Figure("clipped samples", "%", "lower")}
    _FULL, _FLAT, _RUN = 0.999, 1e-5, 3

    def measure(self, heard: Heard) -> dict[str, float]:
        level = np.abs(heard.output.samples)
        if not level.any():
            return {"clipped": 0.0}
        top = level >= float(level.max()) * (1 - self._FLAT)
        # A run is found by its middle: of `_RUN` neighbours all are at the top, and each of them counts.
        edges = np.flatnonzero(np.diff(np.concatenate([[0], top.astype(np.int8), [0]])))
        runs = edges.reshape(-1, 2)
        flat = int(sum(end - start for start, end in runs if end - start >= self._RUN))
        return {"clipped": 100 * max(flat, int((level >= self._FULL).sum())) / len(level)}


class LengthError(Metric):
    """Samples that came out too many, or (negative) are missing, counted at the output's rate."""

    name = "length"
    figures: ClassVar = {"length_error": Figure("length error", "samples", "near")}
    needs = "input"

    def measure(self, heard: Heard) -> dict[str, float]:
        wanted = heard.input.seconds * heard.output.sample_rate
        # Half a sample of rounding belongs to the change of rate, not to the restorer.
        error = len(heard.output.samples) - wanted
        return {"length_error": float(math.trunc(error) if abs(error) < 1 else round(error))}


class OfRun(Metric):
    """A figure of a whole run, measured where the run is made; declared here with the others."""

    def measure(self, heard: Heard) -> dict[str, float]:
        raise NotMeasured("measured over a whole run")


class WordErrors(OfRun):
    """Words that an unadapted Whisper hears, of the output over those of the input: 1 is no harm done."""

    name = "wer"
    figures: ClassVar = {
        "wer": Figure("WER", "%", "lower"),
        "wer_ratio": Figure("WER ratio", "output / input", "lower"),
    }
    sample_rate = 16_000
    needs = "text"
    licence = "the judge's (Whisper: MIT)"
    weights = "the judge's, named in the run's config"


class RealTimeFactor(OfRun):
    """Seconds of work per second of audio; loading the model does not count."""

    name = "rtf"
    figures: ClassVar = {"rtf": Figure("RTF", "s/s", "lower")}


@cache
def known() -> dict[str, Metric]:
    """Every metric by its name, in the order of a report."""
    from .restoration_packages import Dnsmos, Estoi, Pesq, SpeakerSimilarity

    classes: tuple[type[Metric], ...] = (
        *(Dnsmos, SpeakerSimilarity, Estoi, SiSdr, LogSpectralDistance, WordErrors),
        *(Loudness, Clipping, LengthError, RealTimeFactor, OnsetF1, Pesq),
    )
    return {metric.name: metric() for metric in classes}


def chosen(names: str | Iterable[str] = "default") -> list[Metric]:
    """Metrics by name; `default` stands for all that need not be asked for.

    >>> [metric.name for metric in chosen("si_sdr,lsd")]
    ['si_sdr', 'lsd']
    """
    wanted: list[str] = []
    for name in names.split(",") if isinstance(names, str) else names:
        if name == "default":
            wanted += [metric.name for metric in known().values() if not metric.opt_in]
        elif name in known():
            wanted.append(name)
        else:
            raise ConfigError(f"no metric is called {name!r}. {did_you_mean(name, [*known(), 'default'])}")
    return [known()[name] for name in dict.fromkeys(wanted)]


def measure(metrics: Sequence[Metric], heard: Heard) -> tuple[dict[str, float], dict[str, str]]:
    """All figures that can be had of a recording, and by metric why others cannot."""
    figures: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for metric in metrics:
        if isinstance(metric, OfRun):
            continue
        if (why := metric.unavailable()) is not None:
            reasons[metric.name] = why
            continue
        try:
            found = metric.measure(heard)
        except NotMeasured as error:
            reasons[metric.name] = str(error)
        except Exception as error:  # another's package on a sound it did not expect: a row, not the run's end
            reasons[metric.name] = f"{type(error).__name__}: {error}"
        else:
            figures |= {name: value for name, value in found.items() if math.isfinite(value)}
    return figures, reasons


def _unit_power(samples: Samples) -> np.ndarray:
    """Without its mean, in float64; zeros where nothing is left."""
    centred = samples - samples.mean(dtype=np.float64)
    power = np.sqrt(np.mean(np.square(centred)))
    return centred / power if power > 1e-10 else np.zeros_like(centred)


def _log_power(samples: Samples, size: int, hop: int) -> np.ndarray:
    """`(frames, bins)` of log10 power."""
    samples = np.pad(samples, (0, max(0, size - len(samples))))
    starts = np.arange(0, len(samples) - size + 1, hop)
    frames = samples[starts[:, None] + np.arange(size)] * np.hanning(size)
    return np.log10(np.maximum(np.square(np.abs(np.fft.rfft(frames))), 1e-8))
