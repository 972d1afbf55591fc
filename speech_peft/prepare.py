"""python -m speech_peft.prepare CORPUS: a corpus on disk -> manifests for training and the benchmark."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from .audio.corpora.base import Prepared, Progress

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Prepare a corpus: write its recordings' manifests (JSONL), one for each split.",
)
Root = Annotated[Path, typer.Argument(help="The unpacked corpus.")]
Out = Annotated[Path | None, typer.Argument(help="Where the manifests go; by default beside the corpus.")]


@app.command("asterisk-prompts")
def asterisk_prompts(
    out: Annotated[Path, typer.Argument(help="Recordings and manifests go here.")] = Path(
        "corpora/asterisk-prompts"
    ),
    lang: Annotated[str, typer.Option(help="en, es, fr, it or ru.")] = "en",
    source: Annotated[
        list[Path] | None,
        typer.Option(help="A .deb, tarball or folder; repeat. Default: installed, else apt-get."),
    ] = None,
) -> None:
    """Recorded prompts of the Asterisk telephone system, 16 kHz, with transcripts (English: 24 minutes)."""
    _show(lambda step: _corpus("asterisk-prompts")(out, lang=lang, sources=source or (), progress=step))


@app.command("librispeech")
def librispeech(root: Root, out: Out = None) -> None:
    """LibriSpeech, or any folder in its layout; a manifest for each subset found."""
    _show(lambda step: _corpus("librispeech")(root, out, progress=step))


@app.command("common-voice")
def common_voice(root: Root, out: Out = None) -> None:
    """One language of Mozilla Common Voice, in its own split."""
    _show(lambda step: _corpus("common-voice")(root, out, progress=step))


def _corpus(name: str) -> Callable[..., "Prepared"]:
    from .registry import CORPORA

    return CORPORA[name]


def _show(prepare: Callable[["Progress"], "Prepared"]) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("preparing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("", total=None)
        prepared = prepare(lambda done, total: progress.update(bar, completed=done, total=total))
    for name, part in prepared.parts.items():
        print(f"{name}: {part.rows} recordings, {part.seconds / 60:.1f} min -> {part.path}")
    if prepared.reused:
        print("(all there already; nothing was done)")


def main(argv: list[str] | None = None) -> int:
    """0 done, 1 the corpus holds a bad recording, 2 wrong arguments or source, 130 interrupted."""
    from .errors import AudioError, ConfigError

    try:
        app(argv, prog_name="speech_peft.prepare")
    except ConfigError as error:
        typer.echo(f"error: {error}", err=True)
        return 2
    except AudioError as error:
        typer.echo(f"error: {error}", err=True)
        return 1
    except KeyboardInterrupt:
        return 130
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else int(done.code is not None)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
