"""A recording as it can lie inside a web page: an MP3 to hear, a spectrogram to see, both as data URIs."""

import base64
import io

import numpy as np
from numpy.typing import NDArray

_WINDOW = 512
_COLUMNS, _ROWS = 320, 64
_RANGE_DB = 70.0
# Sixteen steps of the magma colour map: four bits a pixel keep a picture at about 5 kB.
_PALETTE = bytes.fromhex(
    "000004 0b0724 20114b 3b0f70 57157e 721f81 8c2981 a8327d"
    "c43c75 de4968 f1605d fa7f5e fe9f6d febf84 fddea0 fcfdbf"
)


def player(samples: NDArray[np.float32], sample_rate: int) -> str:
    """A small MP3 (about 3 kB a second of speech); every browser plays it, Safari's older ones not Opus."""
    import soundfile

    sound = io.BytesIO()
    soundfile.write(
        sound,
        np.clip(samples, -1.0, 1.0),
        sample_rate,
        format="MP3",
        subtype="MPEG_LAYER_III",
        compression_level=0.6,
        bitrate_mode="VARIABLE",
    )
    return "data:audio/mpeg;base64," + base64.b64encode(sound.getvalue()).decode()


def spectrogram(samples: NDArray[np.float32]) -> str:
    """Time to the right, frequency upwards, 70 dB from black to white."""
    levels = _levels(samples)
    return "data:image/png;base64," + base64.b64encode(_png(levels)).decode()


def _levels(samples: NDArray[np.float32]) -> NDArray[np.uint8]:
    """`(rows, columns)` of 0 to 15."""
    samples = np.pad(samples, (0, max(0, _WINDOW - len(samples))))
    starts = np.linspace(0, len(samples) - _WINDOW, min(_COLUMNS, len(samples) // 80)).astype(int)
    frames = samples[starts[:, None] + np.arange(_WINDOW)] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(frames)[:, : _WINDOW // 2]) ** 2
    power = power.reshape(len(starts), _ROWS, -1).mean(axis=2)
    decibels = 10 * np.log10(np.maximum(power, 1e-12))
    relative = (decibels - decibels.max()) / _RANGE_DB + 1
    if decibels.max() < -100:  # silence has no loudest moment to measure against
        relative[:] = 0
    return np.round(np.clip(relative, 0, 1) * 15).astype(np.uint8).T[::-1]


def _png(levels: NDArray[np.uint8]) -> bytes:
    """A PNG of 16 colours, four bits a pixel."""
    from PIL import Image  # here: most commands draw nothing

    file = io.BytesIO()
    image = Image.frombytes("P", levels.shape[::-1], levels.tobytes())
    image.putpalette(_PALETTE)
    image.save(file, "PNG", bits=4, compress_level=9)
    return file.getvalue()
