"""Metrics of restoration that other packages measure; none of them is imported before it is asked for."""

import os
import warnings
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from ..audio.io import Samples
from .metric import INSTALL, Figure, Heard, Metric, NotMeasured, Sound


class OfPackage(Metric):
    """A metric whose package may be missing, or there and broken."""

    needed: ClassVar[tuple[str, ...]] = ()
    """Modules that the package imports and does not ask its installer for."""

    def unavailable(self) -> str | None:
        for module in (self.package, *self.needed):
            if (why := missing(module)) is not None:
                return f"{why}: {self.install}"
        return None

    install: ClassVar[str] = INSTALL


class Dnsmos(OfPackage):
    """DNSMOS P.835 (Reddy et al. 2022, arXiv:2110.01763): what listeners would say, estimated.

    Windows of 9 s, every second; what is shorter is repeated. No reference, and so no idea of what was said.
    """

    name = "dnsmos"
    figures: ClassVar = {
        "dnsmos_ovrl": Figure("DNSMOS OVRL", "1 to 5", "higher"),
        "dnsmos_sig": Figure("DNSMOS SIG", "1 to 5", "higher"),
        "dnsmos_bak": Figure("DNSMOS BAK", "1 to 5", "higher"),
        "dnsmos_p808": Figure("DNSMOS P.808", "1 to 5", "higher"),
    }
    sample_rate = 16_000
    package = "speechmos.dnsmos"
    needed = ("onnxruntime",)
    licence = "MIT"
    weights = "in the package speechmos (9 MB)"
    notice = "rises on sounds that are pleasant and wrong; read it beside the WER ratio and the speaker"

    def measure(self, heard: Heard) -> dict[str, float]:
        samples = _listened(heard.output, 16_000)
        found = _dnsmos()(np.clip(samples, -1.0, 1.0), 16_000, False)
        return {f"dnsmos_{name}": float(found[f"{name}_mos"]) for name in ("ovrl", "sig", "bak")} | {
            "dnsmos_p808": float(found["p808_mos"])
        }


class SpeakerSimilarity(OfPackage):
    """Cosine of GE2E speaker embeddings (Wan et al. 2018, arXiv:1710.10467): is it still the same voice?"""

    name = "speaker"
    figures: ClassVar = {
        "speaker_similarity": Figure("speaker, to the clean", "cosine", "higher"),
        "speaker_to_input": Figure("speaker, to the input", "cosine", None),
    }
    sample_rate = 16_000
    needs = "input"
    package = "resemblyzer"
    licence = "Apache-2.0"
    weights = "in the package resemblyzer (17 MB)"
    notice = "a weak verifier beside ECAPA or WavLM; needs about 1.6 s of speech to be steady"

    def measure(self, heard: Heard) -> dict[str, float]:
        own = self.embedding(heard.output)
        found = {"speaker_to_input": float(own @ self.embedding(heard.input))}
        if heard.reference is not None:
            found["speaker_similarity"] = float(own @ self.embedding(heard.reference))
        return found

    def embedding(self, sound: Sound) -> np.ndarray:
        """`(256,)`, of length 1."""
        return _embedding(_listened(sound, 16_000).tobytes())


class Estoi(OfPackage):
    """ESTOI (Jensen & Taal 2016): how much of the words could be understood, 0 to 1."""

    name = "estoi"
    figures: ClassVar = {"estoi": Figure("ESTOI", "0 to 1", "higher")}
    sample_rate = 16_000  # the package goes on to 10 kHz in its own way, by which it is compared
    needs = "reference"
    package = "pystoi"
    licence = "MIT"

    def measure(self, heard: Heard) -> dict[str, float]:
        clean, output, rate = heard.against_reference(self.sample_rate)
        with warnings.catch_warnings():
            # Fewer than 30 frames of speech give a warning and 1e-5, which is no figure.
            warnings.simplefilter("error", RuntimeWarning)
            try:
                return {"estoi": float(import_module(self.package).stoi(clean, output, rate, extended=True))}
            except RuntimeWarning:
                raise NotMeasured("less than 0.4 s of speech") from None


class Pesq(OfPackage):
    """PESQ, wide band (ITU-T P.862.2)."""

    name = "pesq"
    figures: ClassVar = {"pesq": Figure("PESQ wide band", "1 to 4.64", "higher")}
    sample_rate = 16_000
    needs = "reference"
    package = "pesq"
    licence = "package MIT; the ITU-T P.862 code in it under ITU's terms"
    notice = (
        "the reference code of P.862 is for evaluating the standard: commercial use needs a licence from the "
        "holders of its patents and copyrights (OPTICOM, Psytechnics). You asked for it by name"
    )
    opt_in = True
    install = "pip install pesq (needs a C compiler; read its licence first)"

    def measure(self, heard: Heard) -> dict[str, float]:
        clean, output, rate = heard.against_reference(self.sample_rate)
        return {"pesq": float(import_module(self.package).pesq(rate, clean, output, "wb"))}


@cache
def _dnsmos() -> Any:
    """The package's own class with sessions of as many threads as were asked for.

    Its constructor would make them with a thread for every core of the machine, whatever this process may
    use, and threads that spin while they wait: beside a training it takes hours for minutes.
    """
    module = import_module("speechmos.dnsmos")
    runtime = import_module("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads(), 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    folder = Path(str(module.__file__)).parent / "dnsmos_models"
    model = object.__new__(module.DNSMOS)
    model.primary_model_path = str(folder / "sig_bak_ovr.onnx")
    model.onnx_sess, model.p808_onnx_sess = (
        runtime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
        for name in ("sig_bak_ovr.onnx", "model_v8.onnx")
    )
    return model


def threads() -> int:
    """What `OMP_NUM_THREADS` says, else the cores that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked):
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def missing(module: str) -> str | None:
    """Why a module cannot be imported; None where it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a third package imports of a fourth is not ours to mend
            import_module(module)
    except ModuleNotFoundError as error:
        if error.name == "pkg_resources":  # of webrtcvad, which resemblyzer imports
            return f"{module} needs pkg_resources, which setuptools has no more since 81"
        return f"the package {error.name or module} is not installed"
    except Exception as error:
        return f"{module} cannot be imported ({type(error).__name__}: {error})"
    return None


def _listened(sound: Sound, sample_rate: int) -> Samples:
    samples = sound.at(sample_rate)
    if not samples.any():
        raise NotMeasured("the output is silent" if len(samples) else "the output is empty")
    return samples


@cache
def _encoder() -> Any:
    return import_module("resemblyzer").VoiceEncoder("cpu", verbose=False)


_EMBEDDINGS: dict[int, np.ndarray] = {}  # a reference is met once for each system


def _embedding(samples: bytes) -> np.ndarray:
    key = hash(samples)
    if key not in _EMBEDDINGS:
        if len(_EMBEDDINGS) > 10_000:
            _EMBEDDINGS.clear()
        package = import_module("resemblyzer")
        speech = package.preprocess_wav(np.frombuffer(samples, np.float32), source_sr=16_000)
        if len(speech) < 16_000 * 0.4:  # its voice activity detector left nothing to know a voice by
            raise NotMeasured("less than 0.4 s of speech")
        _EMBEDDINGS[key] = np.asarray(_encoder().embed_utterance(speech))
    return _EMBEDDINGS[key]
