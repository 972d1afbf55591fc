"""The table of formats: what writes each, in which numbers, and which engine says whether they are right."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from jaxtyping import Float32
from numpy import ndarray

from ..errors import ConfigError, did_you_mean
from ..opening.loading import Opened
from . import ct2, ggml, hf, onnx, peft, whisper_cpp
from .merged import merged, whisper_of
from .reading import Reading


@dataclass(frozen=True)
class Format:
    """One kind of folder."""

    limits: Mapping[str, float]
    """Its dtypes, the usual one first, and how far the largest logit may be from that of torch.

    In float32 that is rounding. Otherwise it is several times what the embedded Whisper tiny.en showed on
    speech; a wrong weight is further off.
    """
    write: Callable[[Opened, Path, str], list[str]]
    """Gives what there is to say about what was written."""
    hear: Callable[[Path, Reading], Float32[ndarray, "n v"]]
    engine: str
    """The module that runs it, without which it is not checked."""
    install: str
    """What brings it."""
    whole: bool = False
    """Whether the engine hears 30 s, whatever there is."""

    def dtype(self, asked: str | None, to: str) -> str:
        """The dtype that is meant; raises ConfigError for one that the format has not."""
        if asked is None or asked in self.limits:
            return asked or next(iter(self.limits))
        raise ConfigError(f"--dtype {asked}: --to {to} has none such. {did_you_mean(asked, self.limits)}")

    def require(self) -> None:
        """Raise ConfigError unless the engine is installed."""
        if util.find_spec(self.engine) is None:
            raise ConfigError(
                f"--check runs what is written by {self.engine}, which is not installed: {self.install}"
            )


def _stock(opened: Opened, folder: Path, dtype: str) -> list[str]:
    stock, left_out = hf.write_stock(opened, folder, dtype)
    return [f"a stock {type(stock).__name__}", *(f"note: {note}" for note in left_out)]


def _whisper(to: str, writer: Callable[..., Path]) -> Callable[[Opened, Path, str], list[str]]:
    def write(opened: Opened, folder: Path, dtype: str) -> list[str]:
        whisper = whisper_of(opened, to)
        writer(merged(opened), whisper, folder, dtype)
        return [f"note: the adapter's head {name!r} is not in it" for name in opened.heads]

    return write


def _peft(opened: Opened, folder: Path, dtype: str) -> list[str]:
    return peft.write_peft(opened, folder)


FORMATS: dict[str, Format] = {
    "hf": Format(
        {"base": 1e-3, "float32": 1e-3, "float16": 0.5, "bfloat16": 2.0},
        _stock,
        hf.hear,
        "transformers",
        "pip install transformers",
        whole=True,
    ),
    "ct2": Format(
        {"int8": 5.0, "float16": 0.5, "float32": 1e-3},
        _whisper("ct2", ct2.write_ct2),
        ct2.hear,
        "ctranslate2",
        ct2.INSTALL,
    ),
    "ggml": Format(
        {"float16": 2.0, "q8_0": 3.0, "q5_0": 8.0},
        _whisper("ggml", ggml.write_ggml),
        whisper_cpp.hear,
        "_pywhispercpp",
        whisper_cpp.INSTALL,
        whole=True,
    ),
    "onnx": Format(
        {"float32": 1e-3},
        _whisper("onnx", onnx.write_onnx),
        onnx.hear,
        "onnxruntime",
        "pip install onnxruntime",
    ),
    "peft": Format({"base": 1e-3}, _peft, peft.hear, "peft", "pip install peft", whole=True),
}
