"""Is it still the same voice saying the same words? What a restored recording must pass to be believed.

Restorers make recordings sound better and recognition worse, as they change voices and words where they
cannot hear. So what was made is compared with what came, and where it fails a weaker mix is tried, at last
the input.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy import ndarray

from ..errors import ConfigError, SpeechPeftError
from ..metrics.normalise import normaliser
from ..metrics.restoration_packages import missing
from ..metrics.wer import Counts, align_words, count
from ..metrics.writing import unspaced
from ..opening.loading import Opened
from .result import Check, GuardReport, Trial
from .witnesses import RATE, Recogniser, Resemblyzer, Samples, Speaker, States, Whisper, Words, lost_speech


@dataclass(frozen=True)
class Limits:
    """What may change; rates are over the words heard in the input.

    Where they lie was tried on training prompts alone (`scripts/calibrate_guard.py`, 60 clips, English and
    Spanish, in noise, rooms, codecs, clipping and band limits, heard by Whisper base). The clean recording
    must pass, the best that a restorer can do (95 % do), and half of it mixed with the input (87 %); the
    input without its middle third must not (3 % do), nor another sentence of the same voice (12 %).
    """

    level_db: float = 0.5
    lost_speech: float = 0.15
    """Share of the input's speech. The clean recordings lack 0.10 at most (80 clips: noise and babble that
    the detector took for speech), those without their middle third 0.23 at least."""
    insertions: float = 0.1
    deletions: float = 0.2
    disagreement: float = 0.3
    """Of insertions, deletions and substitutions together."""
    confidence: float = 0.05
    """How much less sure of itself the recogniser may be, where it hears other words. Of clean recordings
    92 % pass with 0.02, 95 with 0.05, 97 with 0.1; with 0.15 more holes do."""
    hard: float = -0.7
    """Below it the input was heard so unsurely that words may change without limit, if they become surer.
    With -0.5 17 % of other sentences passed, with -0.7 12 %, and clean recordings as before."""
    understood: float = -0.7
    """Where neither side reaches it, nobody knows whether the words stayed. A recogniser of all languages
    refuses: restored babble is heard as words (1.27 times the input's errors in noisy rooms; 1.00 with this).
    One of English alone has no opinion: Whisper tiny.en is at -0.04 to -0.17 on clean English, and at -0.9 to
    -1.7 on clean French, of which it would have refused every other perfect restoration."""
    similarity: float | None = None
    """Of the voices; None: what the measure itself names."""


@dataclass(frozen=True)
class GuardOptions:
    """How much is looked at; part of what decides the result."""

    level: Literal["full", "sound"] = "full"
    """sound: level, length and voice; full: also the words, which costs the recogniser's time twice."""
    seconds: float = 60.0
    """Of speech to compare in each recording, spread over it; longer ones are judged by such samples."""
    limits: Limits = Limits()
    weaker: tuple[float, ...] = (0.5, 0.25)
    """What the strength is multiplied with after a failure, one after the other."""


class Guard:
    """Judges what was made of recordings; the input's side is measured once, however many mixes are tried.

    `speaker` and `recogniser` replace those that are found by themselves: resemblyzer where it works,
    else the mean states of the frozen encoder; and the best Whisper that is installed, or that of `weights`.
    """

    def __init__(
        self,
        options: GuardOptions | None = None,
        speaker: Speaker | None = None,
        recogniser: Recogniser | None = None,
        *,
        weights: str | None = None,
        device: str = "cpu",
        offline: bool = False,
    ):
        self.options = options or GuardOptions()
        self._speaker, self._recogniser = speaker, recogniser
        self._weights, self._device, self._offline = weights, device, offline
        self._no_words = ""
        """Why there is no recogniser."""

    def bind(self, opened: Opened) -> None:
        """Take the encoder of the restorer where nothing better tells voices apart."""
        if self._speaker is None:
            # Installed is not importable: its own packages may be too new, or built for another Python.
            self._speaker = States(opened) if missing("resemblyzer") else Resemblyzer(self._device)

    def judge(
        self,
        strength: float,
        make: Callable[[float], tuple[Sequence[Samples], float | None, int]],
        before: Sequence[Samples],
    ) -> tuple[float, GuardReport]:
        """The strength to use and why: the first mix that passes, and 0 (the input) if none does.

        `make` gives, for a strength, the clips at 16 kHz, the change of level in dB (None: silence) and the
        error of length in samples. `before` are the clips of the input; none where there is no speech.
        """
        started = time.perf_counter()
        heard = _Before(self, before)
        trials: list[Trial] = []
        for factor in (1.0, *self.options.weaker) if strength else ():
            trials.append(heard.trial(strength * factor, *make(strength * factor)))
            if trials[-1].ok:
                break
        passed = not trials or trials[-1].ok
        taken = "input" if not passed else "asked" if len(trials) < 2 else "weaker"
        report = GuardReport(
            tuple(trials),
            taken,
            time.perf_counter() - started,
            sum(map(len, before)) / RATE,
        )
        return (trials[-1].strength if trials and passed else 0.0), report

    def words(self, clips: Sequence[Samples], before: Sequence[Words] = ()) -> list[Words] | None:
        """What is said in the clips; None where there is no recogniser, and `_no_words` says why.

        `before` is what was heard in the input, whose language is that of the output.
        """
        if self._recogniser is None and not self._no_words:
            try:
                self._recogniser = Whisper(self._weights, self._device, self._offline)
            except (SpeechPeftError, OSError, ImportError) as error:
                self._no_words = f"no recogniser: {error}"
        if self._recogniser is None:
            return None
        return self._recogniser(clips, [words.language for words in before] or [None] * len(clips))


class _Before:
    """The input's side of the comparison."""

    def __init__(self, guard: Guard, clips: Sequence[Samples]):
        self.guard, self.limits, self.clips = guard, guard.options.limits, clips
        self._voice: Any = None
        self._words: Any = None

    def trial(self, strength: float, clips: Sequence[Samples], level: float | None, length: int) -> Trial:
        """All checks of one mix; once one has failed, the dearer ones are left out."""
        limits = self.limits
        checks = [
            Check("length", abs(length) <= 1, float(length), 1.0, "samples"),
            Check("level", None, note="the recording is silent")
            if level is None
            else Check("level", abs(level) <= limits.level_db, round(level, 3), limits.level_db, "dB"),
        ]
        for more in (self._all_speech, self._same_voice, self._same_words):
            if all(check.ok is not False for check in checks):
                checks += more(clips)
        silent = level is None  # and stays so
        if not silent and all(check.ok is None for check in checks[2:]) and all(c.ok for c in checks[:2]):
            checks.append(Check("vouched", False, note="neither speech, voice nor words could be compared"))
        return Trial(strength, tuple(checks))

    def _all_speech(self, clips: Sequence[Samples]) -> list[Check]:
        lost = lost_speech(self.clips, clips) if self.clips else None
        if lost is None:
            return [Check("speech", None, note="no speech was found")]
        limit = self.limits.lost_speech
        return [Check("speech", lost <= limit, round(lost, 4), limit, "of the input's speech is lost")]

    def _same_voice(self, clips: Sequence[Samples]) -> list[Check]:
        name, speaker = "similarity", self.guard._speaker
        if not self.clips or speaker is None:
            return [
                Check(name, None, note="no speech was found" if not self.clips else "nothing to measure it")
            ]
        try:
            self._voice = speaker(self.clips) if self._voice is None else self._voice
            value = _cosine(self._voice, speaker(clips))
        except (RuntimeError, ValueError, SpeechPeftError) as error:
            return [Check(name, None, note=f"{speaker.name} failed: {error}")]
        limit = speaker.limit if self.limits.similarity is None else self.limits.similarity
        return [Check(name, value >= limit, round(value, 4), limit, speaker.name)]

    def _same_words(self, clips: Sequence[Samples]) -> list[Check]:
        if self.guard.options.level != "full":
            return [Check("words", None, note="not asked for")]
        if not self.clips:
            return [Check("words", None, note="no speech was found")]
        try:
            before = self.guard.words(self.clips) if self._words is None else self._words
            self._words = before
            after = None if before is None else self.guard.words(clips, before)
        except (RuntimeError, ValueError, SpeechPeftError) as error:
            return [Check("words", None, note=f"the recogniser failed: {error}")]
        if before is None or after is None:
            return [Check("words", None, note=self.guard._no_words)]
        witness = cast(Recogniser, self.guard._recogniser)
        return compare(before, after, self.limits, witness.name, witness.multilingual)


def compare(
    before: Sequence[Words],
    after: Sequence[Words],
    limits: Limits,
    name: str = "",
    multilingual: bool = False,
) -> list[Check]:
    """Checks of the words: added and lost ones apart, as a loop and a gap are two ways of being wrong.

    What was hard to hear and is now clear changes words as well. So many changes are accepted where the
    recogniser is surer of what it hears now: up to half of the words, and where it was unsure of the input
    (`hard`) any number of other ones. What it understands neither before nor after (`understood`) it cannot
    compare: that fails if it knows the language, whatever that is.
    """
    plain = normaliser("basic")
    letters = unspaced(w.text for w in (*before, *after))  # else a sentence would be one word, right or wrong
    texts = [
        [" ".join(plain(w.text)) if letters else plain(w.text) for w in side] for side in (before, after)
    ]
    counts = Counts()
    for pairs in align_words(*texts):
        counts = counts + count(pairs)
    words = max(1, counts.reference)
    was, now = _mean(before, texts[0]), _mean(after, texts[1])
    sure = now - was if any(w.text.split() for w in after) else -1.0
    loops = sum(w.loop for w in after) - sum(w.loop for w in before)
    added, lost, wrong = counts.insertions, counts.deletions, counts.errors
    note = f"{name}, {counts.reference} {'characters' if letters else 'words'}"
    repeats = [Check("loop", False, float(loops), 0.0, f"{name} repeats itself")] if loops > 0 else []
    if max(was, now) < limits.understood and (wrong or not multilingual):
        unsure = f"{name} understands it neither before nor after"
        if not multilingual:
            return [Check("words", None, note=f"{unsure} ({was:.2f}, {now:.2f})"), *repeats]
        return [Check("words", False, round(max(was, now), 4), limits.understood, unsure), *repeats]

    def rate(check: str, errors: int, limit: float, excused: bool) -> Check:
        # One word of a short clip is no rate yet.
        few = errors <= max(1, limit * words) if counts.reference else not errors
        why = f"{note}; more, but it is surer of them" if excused and not few else note
        return Check(check, few or excused, round(errors / words, 4), limit, why)

    clearer, half = sure > 0, 0.5 * counts.reference
    checks = [
        rate("insertions", added, limits.insertions, clearer and added <= half),
        rate("deletions", lost, limits.deletions, clearer and lost <= half),
        rate("disagreement", wrong, limits.disagreement, clearer and (was < limits.hard or wrong <= half)),
        Check(
            "confidence", not wrong or sure >= -limits.confidence, round(sure, 4), -limits.confidence, note
        ),
    ]
    return checks + repeats


def _mean(words: Sequence[Words], texts: Sequence[str]) -> float:
    """Mean confidence, by the length of the texts; 0 where there is no word."""
    weights = [len(text.split()) for text in texts]
    return float(np.average([w.confidence for w in words], weights=weights)) if sum(weights) else 0.0


def _cosine(a: ndarray, b: ndarray) -> float:
    return float(a @ b / max(1e-12, float(np.linalg.norm(a) * np.linalg.norm(b))))


def guard_of(level: str, **more: Any) -> Guard | None:
    """The guard of an option: full, sound or off. `more` are fields of GuardOptions or arguments of Guard."""
    if level == "off":
        return None
    if level not in ("full", "sound"):
        raise ConfigError(f"guard: {level!r} is none of full, sound, off")
    fields = {name: more.pop(name) for name in ("seconds", "limits", "weaker") if name in more}
    return Guard(GuardOptions(cast(Any, level), **fields), **more)
