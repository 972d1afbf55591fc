"""speech-peft export ADAPTER -o DIR --to ct2: what was trained, as other engines open it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import ConfigError
from ..folders.options import ADDRESS, Offline
from ..terminal.door import line
from ..terminal.program import new_app, run

if TYPE_CHECKING:
    from ..opening.loading import Opened
    from .formats import Format
    from .reading import Reading

app = new_app()
To = Literal["hf", "ct2", "ggml", "onnx", "peft"]
# How each is opened, and how at the length of the audio, where the adapter was trained so.
_OPENED: dict[str, tuple[str, str]] = {
    "hf": (
        'transformers.pipeline("automatic-speech-recognition", {out!r})',
        "stock code pads to 30 s; speech-peft transcribe --weights {out} --context fit does not",
    ),
    "ct2": (
        "faster_whisper.WhisperModel({out!r})",
        "faster-whisper pads to 30 s; ctranslate2.models.Whisper hears as many frames as it is given",
    ),
    "ggml": (
        "whisper-cli -m {out}/ggml-model.bin",
        "give --audio-ctx, 50 a second of the longest clip",
    ),
    "onnx": (
        "onnxruntime.InferenceSession, encoder.onnx and decoder.onnx",
        "give the frames of the audio alone, 100 a second",
    ),
    "peft": (
        "peft.PeftModel.from_pretrained(base, {out!r})",
        "stock code pads to 30 s; speech-peft adapter import-peft brings it back here",
    ),
}


@app.command(no_args_is_help=True)
def export(
    adapter: Annotated[str, typer.Argument(help=f"An adapter folder or hub id; or weights: {ADDRESS}.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write; must not exist.")],
    to: Annotated[To, typer.Option(help="The format.")],
    dtype: Annotated[
        Literal["base", "float32", "float16", "bfloat16", "int8", "q8_0", "q5_0"] | None,
        typer.Option(help="Of the weights; not given: ct2 int8, ggml float16, onnx float32, hf as the base."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare logits with torch, base and adapter unmerged.")
    ] = False,
    clip: Annotated[
        Path | None,
        typer.Option(help="The recording to compare on, its first 30 s; a made sound if not given."),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option("--weights", "--model", help=f"The frozen model: {ADDRESS}; the one in adapter.json."),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(min=1, help="With --to peft: of the nearest LoRA, for what merges and is none itself."),
    ] = None,
    offline: Offline = False,
) -> None:
    """Write an adapter with its base, or weights alone, in the format of another engine.

    hf is a stock folder of transformers; ct2 is for CTranslate2 and faster-whisper, ggml for whisper.cpp,
    onnx for onnxruntime. All but peft are the merged model, so the adapter has to merge. With --check the
    exit code is 1 where the logits are too far apart.
    """
    if out.exists():
        raise ConfigError(f"--out {out} exists already; give a new name or delete it")
    if rank and to != "peft":
        raise ConfigError(f"--rank {rank} is of --to peft; --to {to} holds the merged weights whole")
    if clip and not check:
        raise ConfigError(f"--clip {clip} is what --check compares on; give --check too")
    from .formats import FORMATS
    from .merged import open_any

    form = FORMATS[to]
    numbers = form.dtype(dtype, to)
    if check:
        form.require()
    opened = open_any(adapter, weights, offline)
    reading = _reading(opened, form, to, clip) if check else None
    for note in _write(opened, out, to, numbers, weights, rank):
        line(note)
    _say_how(opened, out, to)
    del opened  # the engine gets its memory
    if reading is not None and not _agrees(form, out, reading, numbers):
        raise typer.Exit(1)


def _write(
    opened: "Opened", out: Path, to: To, dtype: str, weights: str | None, rank: int | None
) -> list[str]:
    from .formats import FORMATS
    from .peft import write_peft

    return write_peft(opened, out, weights, rank) if to == "peft" else FORMATS[to].write(opened, out, dtype)


def _say_how(opened: "Opened", out: Path, to: To) -> None:
    how, fitting = _OPENED[to]
    if opened.backbone.name == "mel_diffusion":
        how = "backbone.weights={out!r} of a recipe, and Generator(weights={out!r})"
    size = sum(file.stat().st_size for file in out.iterdir())
    line(f"{out}: {size / 1e6:.1f} MB, for {how.format(out=str(out))}")
    together = opened.saved.manifest.together if opened.saved and to != "peft" else {}
    if others := [name for name, at in together.items() if at != "."]:
        line(f"note: merged with {', '.join(others)} too, which ran beside it in training")
    if opened.backbone.options.get("context") == "fit":
        line(f"note: trained at the length of the audio (context: fit): {fitting.format(out=out)}")


def _reading(opened: "Opened", form: "Format", to: To, clip: Path | None) -> "Reading":
    """Torch's own reading, before anything is written, so that its model can go."""
    from ..audio.io import load
    from .merged import whisper_of
    from .reading import RATE, hum, read

    samples = load(clip, RATE, duration=30.0).samples if clip else hum()
    return read(opened, whisper_of(opened, f"{to} --check"), samples, form.whole)


def _agrees(form: "Format", out: Path, reading: "Reading", dtype: str) -> bool:
    from .reading import compare

    found, limit = compare(reading, form.hear(out, reading)), form.limits[dtype]
    good = found.largest <= limit
    line(
        f"check: logits of {form.engine} are off by at most {found.largest:.2g} over {found.tokens} tokens, "
        f"{found.same} of them the same; {'within' if good else 'beyond'} {limit:g}"
    )
    return good


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    return run(app, argv, "export")


if __name__ == "__main__":
    raise SystemExit(main())
