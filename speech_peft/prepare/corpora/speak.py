"""A text becomes a corpus: its sentences, and a lexicon in carrier sentences, in synthetic voices."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ...audio import io
from ...audio.manifest import Row
from ...errors import ConfigError
from ...registry import CORPORA
from ..engines.base import Settings, Voice, open_voices
from ..lexicon import CARRIERS, Said, carried, read_phrases, read_sentences
from .base import Prepared, Progress, reuse, silent, write_parts

_CORPUS = "speak/1"
SECONDS = (0.2, 30.0)
"""Of what is kept: an engine that says nothing, or does not end, has failed."""


@dataclass(frozen=True)
class Script:
    """What is to be spoken: the sentences of a text, and the phrases of a lexicon in carrier sentences."""

    text: Path | None = None
    lexicon: Path | None = None
    times: int = 1
    """How often each sentence of the text is spoken."""
    each: int = 20
    """In how many carriers each phrase of the lexicon stands."""
    carriers: Sequence[str] = CARRIERS

    def lines(self, seed: int) -> list[Said]:
        """All of it, in order. Raises ConfigError where there is nothing."""
        if self.text is None and self.lexicon is None:
            raise ConfigError("speak: give a text, a lexicon or both")
        said = read_sentences(self.text) * self.times if self.text else []
        phrases = read_phrases(self.lexicon) if self.lexicon else []
        return said + list(carried(phrases, self.each, seed, self.carriers))


@CORPORA.register("speak")
def prepare(
    out: str | Path,
    script: Script,
    *,
    engine: str = "hibari",
    settings: Settings | None = None,
    lang: str = "en",
    progress: Progress = silent,
) -> Prepared:
    """Write `OUT/audio/*.flac` and `OUT/all.jsonl`; a complete earlier result is reused.

    The voices of `settings` take turns. Raises ConfigError where the script is empty or the voices can say
    nothing of it.
    """
    out, settings = Path(out), settings or Settings()
    said = script.lines(settings.seed)
    digest = hashlib.sha256("\n".join(f"{one.text}\t{one.sound}" for one in said).encode()).hexdigest()
    known = {**asdict(settings), "names": list(settings.names), "folder": str(settings.folder)}
    stamp = {"corpus": _CORPUS, "engine": engine, "lang": lang, "sentences": digest, **known}
    if earlier := reuse(out, stamp):
        return earlier
    rows: list[Row] = []
    for done, (one, voice) in enumerate(taken_in_turn(said, open_voices(engine, settings), settings.seed), 1):
        audio = out / "audio" / f"{done:05d}.flac"
        if seconds := _spoken(one.sound, voice, audio):
            row = Row(audio.stem, audio, duration=seconds, text=one.text, speaker=voice.name, lang=lang)
            rows.append(replace(row, extra={"lexicon": list(one.phrases)}) if one.phrases else row)
        progress(done, len(said))
    if not rows:
        raise ConfigError(f"{engine}: could say none of {len(said)} sentences, such as {said[0].text!r}")
    return write_parts(out, {"all": rows}, stamp)


def taken_in_turn(said: Sequence[Said], voices: Sequence[Voice], seed: int) -> list[tuple[Said, Voice]]:
    """Who says what: voices in an order that is drawn anew whenever all have spoken."""
    generator = np.random.default_rng(seed)
    order: list[int] = []
    while len(order) < len(said):
        order += generator.permutation(len(voices)).tolist()
    return [(one, voices[place]) for one, place in zip(said, order, strict=False)]


def _spoken(text: str, voice: Voice, audio: Path) -> float:
    """Seconds of the recording that was written; 0 where nothing came that could be the sentence."""
    samples = np.asarray(voice.say(text), np.float32)
    seconds = len(samples) / voice.sample_rate
    if not SECONDS[0] <= seconds <= SECONDS[1] or not np.isfinite(samples).all() or not samples.any():
        return 0.0
    io.save(audio, np.clip(samples, -1.0, 1.0), voice.sample_rate)
    return seconds
