"""Real codecs in memory: what speech sounds like after a telephone, a podcast or a conference.

Each result has the length of its input and no delay: G.711 and GSM have none, MP3, Opus and AAC travel
in a container that declares the encoder's, and the decoder removes it.
"""

import io as stdio
from dataclasses import dataclass
from typing import Any, Literal

import av
import numpy as np
import soundfile
import soxr
from jaxtyping import Float32

from ...errors import ConfigError
from ..io import Samples

Name = Literal["mulaw", "alaw", "gsm", "mp3", "opus", "aac"]


@dataclass(frozen=True)
class Codec:
    """How to reach one codec: libsndfile's subtype, or FFmpeg's encoder in a container."""

    encoder: str
    container: str | None  # None: libsndfile, in a WAV
    rate: int | None  # the rate it works at; None: the rate of the audio
    bit_rates: tuple[int, int] | None = None  # kbit/s that make sense for mono speech


CODECS: dict[str, Codec] = {
    "mulaw": Codec("ULAW", None, 8_000),
    "alaw": Codec("ALAW", None, 8_000),
    "gsm": Codec("GSM610", None, 8_000),  # FFmpeg's build in PyAV decodes GSM only; libsndfile does both
    "mp3": Codec("libmp3lame", "mp3", None, (16, 64)),
    "opus": Codec("libopus", "ogg", 48_000, (8, 32)),  # at lower rates its time stamps lose a millisecond
    "aac": Codec("aac", "mp4", None, (16, 64)),
}
_RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # of MP3 and AAC
_TAIL_SECONDS = 0.1  # encoded after the end, so that a codec's last frame is complete


def transcode(
    samples: Samples, sample_rate: int, name: Name, kbit_per_second: float | None = None
) -> Samples:
    """The audio after encoding and decoding; `kbit_per_second` is for the codecs that have a choice."""
    if name not in CODECS:
        raise ConfigError(f"no codec is called {name!r}; there are: {', '.join(CODECS)}")
    codec = CODECS[name]
    rate = codec.rate or next((rate for rate in _RATES if rate >= sample_rate), _RATES[-1])
    padded = np.concatenate([samples, np.zeros(round(_TAIL_SECONDS * sample_rate), np.float32)])
    sent = soxr.resample(padded, sample_rate, rate) if rate != sample_rate else padded
    if codec.container is None:
        heard = _through_soundfile(sent, rate, codec)
    else:
        kbits = kbit_per_second or (codec.bit_rates or (32, 32))[1]
        heard = _through_ffmpeg(sent, rate, codec, round(1000 * kbits))
    heard = soxr.resample(heard, rate, sample_rate) if rate != sample_rate else heard
    result = np.zeros(len(samples), np.float32)
    kept = min(len(result), len(heard))
    result[:kept] = heard[:kept]
    return result


def _through_soundfile(samples: Samples, rate: int, codec: Codec) -> Float32[np.ndarray, " heard"]:
    file = stdio.BytesIO()
    soundfile.write(file, samples, rate, codec.encoder, format="WAV")
    file.seek(0)
    return soundfile.read(file, dtype="float32")[0]


def _through_ffmpeg(
    samples: Samples, rate: int, codec: Codec, bit_rate: int
) -> Float32[np.ndarray, " heard"]:
    file = stdio.BytesIO()
    with av.open(file, "w", format=codec.container) as container:
        stream: Any = container.add_stream(codec.encoder, rate=rate, layout="mono", bit_rate=bit_rate)
        pcm = np.clip(np.rint(samples * 32767), -32768, 32767).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="mono")
        frame.rate, frame.pts = rate, 0
        context = stream.codec_context
        cut = av.AudioResampler(context.format.name, "mono", rate, frame_size=context.frame_size or None)
        for whole in (frame, None):
            for part in cut.resample(whole):
                container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as container:
        to_float = av.AudioResampler("flt", "mono", rate)
        decoded = [part for frame in container.decode(audio=0) for part in to_float.resample(frame)]
    return np.concatenate([part.to_ndarray()[0] for part in decoded])
