"""Small recordings in containers, as recorders, players and broken programs leave them."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

RATE = 48_000
Blocks = Sequence[tuple[float, np.ndarray]]
"""Samples at 48 kHz, each with the second at which its time stamps begin."""


def noise(seconds: float, level: float = 0.1, rate: int = RATE, seed: int = 0) -> np.ndarray:
    return (level * np.random.default_rng(seed).standard_normal(round(seconds * rate))).astype(np.float32)


def container(path: Path, *tracks: Blocks, default: int | None = None, video_seconds: float = 0.0) -> Path:
    """Opus tracks in what the suffix names, beside a picture; `default` is the marked track, from 1."""
    with av.open(str(path), "w") as file:
        picture: Any = _picture(file) if video_seconds else None
        streams: list[Any] = [file.add_stream("libopus", rate=RATE, layout="mono") for _ in tracks]
        for number, stream in enumerate(streams, 1):
            stream.disposition = av.stream.Disposition(int(default in (None, number)))
        if picture is not None:
            for at in range(round(10 * video_seconds)):
                frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
                frame.pts = at
                file.mux(picture.encode(frame))
            file.mux(picture.encode(None))
        for stream, blocks in zip(streams, tracks, strict=True):
            for start, samples in blocks:
                _encode(file, stream, start, samples)
            file.mux(stream.encode(None))
    return path


def _picture(file: Any) -> Any:
    stream = file.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
    return stream


def _encode(file: Any, stream: Any, start: float, samples: np.ndarray) -> None:
    for at in range(0, len(samples) - 959, 960):
        frame = av.AudioFrame.from_ndarray(samples[None, at : at + 960], format="flt", layout="mono")
        frame.sample_rate, frame.time_base = RATE, Fraction(1, RATE)
        frame.pts = round(start * RATE) + at
        file.mux(stream.encode(frame))


def mp3_without_header(path: Path, samples: np.ndarray, kbits: int) -> bytes:
    """An MP3 at 48 kHz that says nothing of its length."""
    options = {"write_xing": "0", "id3v2_version": "0"}
    with av.open(str(path), "w", options=options) as file:
        stream: Any = file.add_stream("libmp3lame", rate=RATE, layout="mono", bit_rate=1000 * kbits)
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = RATE, 0
        cut = av.AudioResampler("fltp", "mono", RATE, frame_size=stream.codec_context.frame_size)
        for whole in (frame, None):
            for part in cut.resample(whole):
                file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return path.read_bytes()


def sound_file(path: Path, samples: np.ndarray, rate: int = RATE, **more: Any) -> bytes:
    """What libsndfile writes, by its suffix."""
    if path.suffix == ".opus":
        more = {"format": "OGG", "subtype": "OPUS", **more}
    soundfile.write(path, samples, rate, **more)
    return path.read_bytes()
