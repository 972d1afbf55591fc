"""speech-peft prepare CORPUS: a corpus on disk -> manifests for training and the benchmark."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from .corpora.base import Prepared, Progress

from ..terminal.door import line
from ..terminal.program import new_app, run

app = new_app("Prepare a corpus: write its recordings' manifests (JSONL), one for each split.")
Root = Annotated[Path, typer.Argument(help="The unpacked corpus.")]
Out = Annotated[Path | None, typer.Argument(help="Where the manifests go; by default beside the corpus.")]


@app.command("asterisk-prompts")
def asterisk_prompts(
    out: Annotated[Path, typer.Argument(help="Recordings and manifests go here.")] = Path(
        "corpora/asterisk-prompts"
    ),
    lang: Annotated[
        Literal["en", "es", "fr", "it", "ru"], typer.Option("--lang", "--language", help="Of the prompts.")
    ] = "en",
    source: Annotated[
        list[Path] | None,
        typer.Option(help="A .deb, tarball or folder; repeat. Default: installed, else apt-get."),
    ] = None,
) -> None:
    """Recorded prompts of the Asterisk telephone system, 16 kHz, with transcripts (English: 24 minutes)."""
    _show(lambda step: _corpus("asterisk-prompts")(out, lang=lang, sources=source or (), progress=step))


@app.command("amazon-queen")
def amazon_queen(
    out: Annotated[Path, typer.Argument(help="Recordings and manifests go here.")] = Path(
        "corpora/amazon-queen"
    ),
    source: Annotated[
        list[Path] | None,
        typer.Option(help="The game's .deb or its queen.1c. Default: installed, else apt-get."),
    ] = None,
    unknown: Annotated[
        bool, typer.Option("--unknown", help="Also clips whose speaker nobody names, for training.")
    ] = False,
) -> None:
    """Dialogue of Flight of the Amazon Queen: acted English by 30 voices, split by speaker (3.1 hours)."""
    _show(lambda step: _corpus("amazon-queen")(out, sources=source or (), unknown=unknown, progress=step))


@app.command("steel-sky")
def steel_sky(
    out: Annotated[Path, typer.Argument(help="Recordings and manifest go here.")] = Path("corpora/steel-sky"),
    source: Annotated[
        list[Path] | None,
        typer.Option(help="The game's .deb or its folder. Default: installed, else apt-get."),
    ] = None,
) -> None:
    """Dialogue of Beneath a Steel Sky: acted English whose speakers nobody names (1.9 hours)."""
    _show(lambda step: _corpus("steel-sky")(out, sources=source or (), progress=step))


@app.command("fillets")
def fillets(
    out: Annotated[
        Path | None,
        typer.Argument(help="Recordings and manifests go here.", show_default="corpora/fillets-LANG"),
    ] = None,
    lang: Annotated[Literal["cs", "nl"], typer.Option("--lang", "--language", help="Czech or Dutch.")] = "cs",
    source: Annotated[
        list[Path] | None,
        typer.Option(help="A .deb or the game's folder; repeat. Default: installed, else apt-get."),
    ] = None,
) -> None:
    """Dialogue of Fish Fillets: acted Czech or Dutch with its English, split by speaker (1.6 hours each)."""
    out = out or Path(f"corpora/fillets-{lang}")
    _show(lambda step: _corpus("fillets")(out, lang=lang, sources=source or (), progress=step))


@app.command("speak")
def speak(
    text: Annotated[Path | None, typer.Argument(help="What is spoken: a text file.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Recordings and manifest go here.")] = Path(
        "corpora/spoken"
    ),
    voices: Annotated[int, typer.Option(min=1, help="How many voices take turns.")] = 8,
    engine: Annotated[Literal["hibari", "kokoro", "command"], typer.Option(help="Who speaks.")] = "hibari",
    voice: Annotated[
        list[str] | None,
        typer.Option(help="One of the engine's voices, by name; repeat. Default: all it has."),
    ] = None,
    voices_folder: Annotated[
        Path | None, typer.Option(help="kokoro: a folder of NAME.bin, as `npm pack kokoro-js` brings it.")
    ] = None,
    command: Annotated[
        str | None, typer.Option(help="command: such as 'espeak-ng -v {voice} -w {wav} {text}'.")
    ] = None,
    lexicon: Annotated[
        Path | None, typer.Option(help="Words and names, one a line, spoken in carrier sentences.")
    ] = None,
    carriers: Annotated[
        Path | None, typer.Option(help="Carrier sentences of your own, one a line, {} for the phrase.")
    ] = None,
    each: Annotated[int, typer.Option(min=1, help="Carrier sentences for a phrase of the lexicon.")] = 20,
    times: Annotated[int, typer.Option(min=1, help="How often a sentence of the text is spoken.")] = 1,
    lang: Annotated[str, typer.Option("--lang", "--language", help="Of the text, for the manifest.")] = "en",
    seed: Annotated[int, typer.Option(min=0, help="Of voices, their turns and carriers.")] = 0,
) -> None:
    """A text file as a corpus in synthetic voices (the extra `speak`), with the phrases of a lexicon."""
    from .corpora.speak import Script
    from .engines.base import Settings
    from .lexicon import CARRIERS, read_carriers

    script = Script(text, lexicon, times, each, read_carriers(carriers) if carriers else CARRIERS)
    settings = Settings(voices, seed, tuple(voice or ()), voices_folder, command)
    _show(
        lambda step: _corpus("speak")(out, script, engine=engine, settings=settings, lang=lang, progress=step)
    )


@app.command("librispeech")
def librispeech(root: Root, out: Out = None) -> None:
    """LibriSpeech, or any folder in its layout; a manifest for each subset found."""
    _show(lambda step: _corpus("librispeech")(root, out, progress=step))


@app.command("common-voice")
def common_voice(root: Root, out: Out = None) -> None:
    """One language of Mozilla Common Voice, in its own split."""
    _show(lambda step: _corpus("common-voice")(root, out, progress=step))


@app.command("esc50")
def esc50(
    root: Root,
    out: Out = None,
    esc10: Annotated[bool, typer.Option("--esc10", help="Only the ten classes of ESC-10.")] = False,
) -> None:
    """ESC-50 or ESC-10, environmental sounds, with the column `fold`."""
    _show(lambda step: _corpus("esc50")(root, out, esc10=esc10, progress=step))


@app.command("urbansound8k")
def urbansound8k(root: Root, out: Out = None) -> None:
    """UrbanSound8K, sounds of the street, with the column `fold`."""
    _show(lambda step: _corpus("urbansound8k")(root, out, progress=step))


@app.command("speech-commands")
def speech_commands(root: Root, out: Out = None) -> None:
    """Speech Commands v2, 35 words, in its official split."""
    _show(lambda step: _corpus("speech-commands")(root, out, progress=step))


@app.command("fluent-speech-commands")
def fluent_speech_commands(root: Root, out: Out = None) -> None:
    """Fluent Speech Commands, 31 intents (action/object/location), in its own split."""
    _show(lambda step: _corpus("fluent-speech-commands")(root, out, progress=step))


@app.command("fsdd")
def fsdd(root: Root, out: Out = None) -> None:
    """The Free Spoken Digit Dataset, in its own split and as a whole."""
    _show(lambda step: _corpus("fsdd")(root, out, progress=step))


@app.command("class-folder")
def class_folder(
    root: Annotated[Path, typer.Argument(help="CLASS/CLIP.wav")],
    out: Out = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            help=r"Regular expression of the file names; named groups become columns: '(?P<fold>\d)-.*'"
        ),
    ] = None,
) -> None:
    """A folder of class folders; a fold or speaker in the file names becomes a column."""
    _show(lambda step: _corpus("class-folder")(root, out, pattern=pattern, progress=step))


def _corpus(name: str) -> Callable[..., "Prepared"]:
    from ..registry import CORPORA

    return CORPORA[name]


def _show(prepare: Callable[["Progress"], "Prepared"]) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from ..files.atomic import sweep

    console = Console(stderr=True)
    columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        prepared = prepare(lambda done, total: progress.update(bar, completed=done, total=total))
    for folder in {part.path.parent for part in prepared.parts.values()}:
        sweep(folder)  # what killed runs left behind
    for name, part in prepared.parts.items():
        line(f"{name}: {part.rows} recordings, {part.seconds / 60:.1f} min -> {part.path}")
    if prepared.reused:
        line("(all there already; nothing was done)")


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 the corpus holds a bad recording, 2 wrong arguments or source, 130 interrupted."""
    return run(app, argv, "prepare")


if __name__ == "__main__":
    raise SystemExit(main())
