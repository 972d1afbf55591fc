"""Silero VAD (MIT, weights from the `silero-vad` wheel) as six matrix products over all frames at once.

The package itself runs one 32 ms frame per call and sets torch to one thread when imported; here only its
weight file is used. Frames are independent up to the LSTM, so only that is a loop, in torch.
(The wheel's safetensors file holds an older training than the TorchScript file that everybody uses.)
"""

import warnings
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import Float32
from numpy import ndarray
from numpy.lib.stride_tricks import sliding_window_view

FRAME = 512  # samples of 16 kHz audio per probability
_CONTEXT = 64  # samples of the frame before, which the network was trained to see
_REFLECTED = 64


def weights_file() -> Path | None:
    """Where the installed wheel keeps the network, found without importing the package."""
    spec = find_spec("silero_vad")
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / "data" / "silero_vad.jit"
    return path if path.is_file() else None


@cache
def _weights() -> dict[str, Float32[ndarray, "..."]]:
    import torch

    path = weights_file()
    if path is None:
        raise FileNotFoundError("the weights of silero-vad are not installed: pip install silero-vad")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls TorchScript deprecated since 2.10; it still reads it
        state = torch.jit.load(str(path), map_location="cpu").state_dict()
    wanted = {name.removeprefix("_model."): value for name, value in state.items() if "8k" not in name}
    return {name.replace("reparam_conv.", ""): value.float().numpy() for name, value in wanted.items()}


class Silero:
    """Speech probabilities of one stream; it remembers the LSTM between calls."""

    def __init__(self) -> None:
        self._w = _weights()
        self._tail = np.zeros(_CONTEXT, np.float32)
        self._h = np.zeros(128, np.float32)
        self._c = np.zeros(128, np.float32)

    def __call__(self, samples: Float32[ndarray, " s"]) -> Float32[ndarray, " f"]:
        """One probability per whole frame of 512 samples; a last part of a frame is filled with silence."""
        if len(samples) % FRAME:
            samples = np.pad(samples, (0, -len(samples) % FRAME))
        stream = np.concatenate([self._tail, samples])
        self._tail = stream[-_CONTEXT:].copy()
        frames = sliding_window_view(stream, _CONTEXT + FRAME)[::FRAME]
        return self._recur(self._features(frames))

    def _features(self, frames: Float32[ndarray, "f s"]) -> Float32[ndarray, "f 128"]:
        padded = np.pad(frames, ((0, 0), (0, _REFLECTED)), mode="reflect")
        hops = sliding_window_view(padded, 256, axis=1)[:, ::128]
        spectrum = hops @ self._w["stft.forward_basis_buffer"][:, 0].T
        x = np.sqrt(np.square(spectrum[..., :129]) + np.square(spectrum[..., 129:])).reshape(len(frames), -1)
        for matrix, bias in _convolutions():
            x = x @ matrix
            x += bias
            np.maximum(x, 0, out=x)
        return x

    def _recur(self, x: Float32[ndarray, "f 128"]) -> Float32[ndarray, " f"]:
        import torch

        w = self._w
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        matrices = [torch.from_numpy(w[f"decoder.rnn.{name}"]) for name in names]
        state = tuple(torch.from_numpy(part)[None, None] for part in (self._h, self._c))
        with torch.inference_mode():  # a loop in Python costs five times as much
            found, h, c = torch.lstm(
                torch.from_numpy(x)[None], state, matrices, True, 1, 0.0, False, False, True
            )
        self._h, self._c = h[0, 0].numpy().copy(), c[0, 0].numpy().copy()
        outputs = found[0].numpy()
        return _sigmoid(
            np.maximum(outputs, 0) @ w["decoder.decoder.2.weight"][0, :, 0] + w["decoder.decoder.2.bias"]
        )


@cache
def _convolutions() -> list[tuple[Float32[ndarray, "i o"], Float32[ndarray, " o"]]]:
    """Each convolution over the four hops of a frame as one matrix and its bias: gathering taps costs more
    than the zeros in it."""
    w, count, found = _weights(), 4, []
    for layer, stride in enumerate((1, 2, 2, 1)):
        weight, bias = w[f"encoder.{layer}.weight"], w[f"encoder.{layer}.bias"]
        matrix = _banded(weight, count, stride)
        found.append((matrix.reshape(count * weight.shape[1], -1), np.tile(bias, matrix.shape[2])))
        count = matrix.shape[2]
    return found


def _banded(weight: Float32[ndarray, "o i 3"], count: int, stride: int) -> Float32[ndarray, "t i u o"]:
    """A convolution of width 3 over `count` steps, with one of zeros at both ends."""
    steps = range(0, count, stride)
    matrix = np.zeros((count, weight.shape[1], len(steps), len(weight)), np.float32)
    for to, centre in enumerate(steps):
        for tap, at in enumerate(range(centre - 1, centre + 2)):
            if 0 <= at < count:
                matrix[at, :, to] = weight[:, :, tap].T
    return matrix


def _sigmoid(x: ndarray) -> ndarray:
    return np.float32(0.5) * np.tanh(np.float32(0.5) * x) + np.float32(0.5)
