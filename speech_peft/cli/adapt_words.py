"""Names and jargon from a list alone: `speech-peft adapt-words words.txt --data train.jsonl -o runs/words`.

The words are spoken in many synthetic voices inside carrier sentences, mixed with real speech that must not
get worse, and a recipe learns an adapter from both. Validation hears voices that training did not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import ConfigError
from ..terminal.door import complain, line
from ..terminal.program import new_app, run

if TYPE_CHECKING:
    from ..audio.manifest import Row
    from ..train.fit import Trained

RECIPE = "asr/whisper_words"
HELD_OUT = 0.15
"""Share of the synthetic voices that only validation hears."""
VALID_REAL = 40
"""Clips of the real speech that are held out where no --valid is given."""

app = new_app()


@app.command()
def command(
    words: Annotated[
        Path, typer.Argument(help="One word or phrase a line; `Floda = Flow-da` says how it is read.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Of the recipe, as in optim.lr=3e-4.")
    ] = None,
    data: Annotated[
        Path, typer.Option(help="Manifest of real speech with texts, which must not get worse.")
    ] = Path("corpora/asterisk-prompts/train.jsonl"),
    valid: Annotated[
        Path | None, typer.Option(help="The same for validation; by default some clips of --data.")
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="The run's folder.")] = Path("runs/words"),
    recipe: Annotated[str, typer.Option(help="A recipe's file or bundled name.")] = RECIPE,
    engine: Annotated[Literal["hibari", "kokoro", "command"], typer.Option(help="Who speaks.")] = "hibari",
    voices: Annotated[int, typer.Option(min=2, help="Synthetic voices.")] = 32,
    voices_folder: Annotated[Path | None, typer.Option(help="As in prepare speak.")] = None,
    say: Annotated[str | None, typer.Option("--command", help="As in prepare speak.")] = None,
    each: Annotated[int, typer.Option(min=1, help="Carrier sentences for a word.")] = 12,
    real: Annotated[
        float, typer.Option(min=0, help="Seconds of real speech to a second of synthetic.")
    ] = 2.0,
    seed: Annotated[int, typer.Option(min=0, help="Of voices, carriers and the choice of real speech.")] = 0,
) -> None:
    """An adapter that knows the words of a list, learned from their spelling in synthetic voices."""
    from ..prepare.engines.base import Settings

    settings = Settings(voices, seed, (), voices_folder, say)
    plan = Plan(words, data, valid, out, recipe, engine, settings, each, real)
    trained = plan.train(plan.heard(), overrides or ())
    scores = f", {trained.scores.name} {trained.scores.value:.4f}" if trained.scores else ""
    line(f"{trained.steps} steps in {trained.seconds:.0f} s{scores} (synthetic voices and real speech)")
    for folder in trained.folders:
        line(f"adapter: {folder}")


@dataclass(frozen=True)
class Plan:
    """What is asked for."""

    words: Path
    data: Path
    valid: Path | None
    out: Path
    recipe: str
    engine: str
    settings: Any
    each: int
    real: float

    def heard(self) -> tuple[Path, Path]:
        """The manifests that are trained and validated on, spoken and written.

        Raises ConfigError where the real speech has no texts or the engine is not there.
        """
        from ..audio import manifest
        from ..prepare.corpora.speak import Script
        from ..registry import CORPORA

        spoken = CORPORA["speak"](
            self.out / "spoken",
            Script(lexicon=self.words, each=self.each),
            engine=self.engine,
            settings=self.settings,
        )
        said = [replace(row, id=f"spoken/{row.id}") for row in manifest.read(spoken.parts["all"].path)]
        real = [row for row in manifest.read(self.data) if row.text]
        if not real and self.real:
            raise ConfigError(f"--data: {self.data} has no row with a text")
        held = manifest.read(self.valid) if self.valid else []
        parts = mixed(said, real, held, self.real, self.settings.seed)
        for name, rows in parts.items():
            manifest.write(self.out / f"{name}.jsonl", rows)
            complain(f"{name}: {len(rows)} clips, {seconds(rows) / 60:.1f} min")
        return self.out / "train.jsonl", self.out / "valid.jsonl"

    def train(self, heard: tuple[Path, Path], overrides: Sequence[str]) -> "Trained":
        from ..recipe import config
        from ..train import stages

        train, valid = heard
        given = [f"data.train={train}", f"data.valid={valid}", f"out={self.out}", *overrides]
        return stages.run(config.read_stages(self.recipe, given))


def mixed(
    said: "Sequence[Row]", real: "Sequence[Row]", held: "Sequence[Row]", share: float, seed: int
) -> dict[str, "list[Row]"]:
    """`train` and `valid`: synthetic voices apart, and of real speech `share` seconds to each of theirs.

    Shuffled, as clips that follow each other may be joined to windows.
    """
    import numpy as np

    generator = np.random.default_rng(seed)
    voices = sorted({row.speaker or "" for row in said})
    order = [voices[place] for place in generator.permutation(len(voices))]
    apart = set(order[: max(1, round(HELD_OUT * len(order)))]) if len(order) > 1 else set[str]()
    shuffled = [real[place] for place in generator.permutation(len(real))]
    if not held:
        held, shuffled = shuffled[:VALID_REAL], shuffled[VALID_REAL:]
    spoken = [row for row in said if row.speaker not in apart]
    lengths = np.cumsum([row.duration or 0.0 for row in shuffled])
    enough = int(np.searchsorted(lengths, share * seconds(spoken)))
    train = [*spoken, *shuffled[: enough + bool(share)]]
    heard = [row for row in said if row.speaker in apart]
    return {"train": [train[place] for place in generator.permutation(len(train))], "valid": [*heard, *held]}


def seconds(rows: "Sequence[Row]") -> float:
    """How long they are together, as far as they say."""
    return sum(row.duration or 0.0 for row in rows)


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code."""
    return run(app, argv, "adapt-words")


if __name__ == "__main__":
    raise SystemExit(main())
