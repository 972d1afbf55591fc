"""Words that are added, lost or changed: what the guard lets pass, and what not."""

from types import SimpleNamespace

import numpy as np
import pytest

from speech_peft.audio.windows import chunks
from speech_peft.errors import ConfigError
from speech_peft.restore import guard as guard_module
from speech_peft.restore import witnesses
from speech_peft.restore.guard import Guard, GuardOptions, Limits, Words, compare, guard_of

SAID = "one two three four five six seven eight nine ten"


def failed(before: str, after: str, sure: float = 0.0, loop: bool = False) -> list[str]:
    """The checks that fail when the recogniser is so much surer of what it hears afterwards."""
    checks = compare([Words(before, -0.5)], [Words(after, -0.5 + sure, loop)], Limits())
    return [check.name for check in checks if check.ok is False]


@pytest.mark.parametrize(
    ("after", "sure", "names"),
    [
        (SAID, -1.0, []),
        (SAID.upper() + ".", 0.0, []),
        (SAID + " eleven", -0.01, []),
        (SAID + " eleven", -0.06, ["confidence"]),
        (SAID + " a b c", -0.01, ["insertions"]),
        (SAID + " a b c", 0.1, []),
        (SAID + " a b c d e f", 0.1, ["insertions", "disagreement"]),
        ("one two three", -0.01, ["deletions", "disagreement"]),
        ("one two three", 0.2, ["deletions", "disagreement"]),
        ("one two three four five six", 0.2, []),
        ("", 0.0, ["deletions", "disagreement", "confidence"]),
    ],
)
def test_words_may_change_only_where_they_are_heard_more_surely(after, sure, names):
    assert failed(SAID, after, sure) == names


def test_scripts_without_spaces_are_compared_by_characters():
    said = "今天天气很好我们去公园散步吧"
    assert failed(said, said.replace("吧", "了"), 0.1) == []
    assert failed(said, "明天下雨他在家里看书写字呢", 0.1) == ["disagreement"]
    assert failed(said, said[:5], 0.1) == ["deletions", "disagreement"]


def test_other_words_heard_clearly_are_believed_only_where_the_input_was_hard_to_hear():
    other = "a b c d e f g h i j"
    for was, names in ((-0.1, ["disagreement"]), (-0.8, [])):
        checks = compare([Words(SAID, was)], [Words(other, -0.05)], Limits())
        assert [check.name for check in checks if check.ok is False] == names


def test_what_is_understood_neither_before_nor_after_is_not_compared_but_loops_fail():
    (check,) = compare([Words(SAID, -1.3)], [Words("four other words here", -0.9)], Limits())
    assert (check.name, check.ok) == ("words", None)
    assert "-1.30" in check.note
    checks = compare([Words(SAID, -1.3)], [Words(SAID, -0.9, loop=True)], Limits())
    assert [one.name for one in checks if one.ok is False] == ["loop"]


def test_one_who_knows_the_language_and_understands_nothing_refuses_changed_words():
    before, after = [Words(SAID, -1.3)], [Words("four other words here", -0.9)]
    (check,) = compare(before, after, Limits(), multilingual=True)
    assert (check.name, check.ok, check.value) == ("words", False, -0.9)
    assert all(check.ok for check in compare(before, [Words(SAID, -0.9)], Limits(), multilingual=True))


def test_the_output_is_heard_in_the_language_of_the_input():
    asked = []

    class Polyglot:
        name, multilingual = "toy", True

        def __call__(self, clips, languages):
            asked.append(list(languages))
            return [Words("un deux", -0.1, language="fr") for _ in clips]

    clip = [np.zeros(16_000, np.float32)]
    _, report = Guard(GuardOptions(), Same(), Polyglot()).judge(1.0, lambda s: (clip, 0.0, 0), clip)
    assert asked == [[None], ["fr"]]
    assert report.taken == "asked"


def test_speech_that_is_gone_fails_in_any_language(monkeypatch):
    monkeypatch.setattr(witnesses.chunks, "detector", lambda name: chunks.Energy())
    came = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * 0.1
    came[:6_000] = 0
    hole = came.copy()
    hole[20_000:] = 0
    guard = Guard(guard_of("sound").options, Same())
    assert guard.judge(1.0, lambda s: ([came], 0.0, 0), [came])[1].taken == "asked"
    strength, report = guard.judge(1.0, lambda s: ([hole], 0.0, 0), [came])
    assert (strength, report.taken) == (0.0, "input")
    assert report.trials[0].failed == ("speech",)


def test_a_speaker_encoder_that_cannot_be_imported_gives_way(monkeypatch):
    monkeypatch.setattr(guard_module, "missing", lambda module: f"{module} needs pkg_resources")
    guard = Guard()
    guard.bind(SimpleNamespace())
    assert isinstance(guard._speaker, witnesses.States)


def test_words_out_of_nothing_and_loops_fail():
    assert "insertions" in failed("", "thank you", sure=0.5)
    assert "loop" in failed(SAID, SAID, loop=True)


class Same:
    name, limit = "toy", 0.5

    def __call__(self, clips):
        return np.ones(4, np.float32)


class Never:
    name, limit = "toy", 0.5

    def __call__(self, clips):
        raise RuntimeError("no voice at all")


@pytest.fixture
def energy(monkeypatch):
    """Speech is what is loud."""
    monkeypatch.setattr(witnesses.chunks, "detector", lambda name: chunks.Energy())


def spoken() -> np.ndarray:
    clip = np.random.default_rng(0).standard_normal(32_000).astype(np.float32) * 0.1
    clip[:6_000] = 0
    return clip


@pytest.mark.parametrize("clips", [[], [np.zeros(16_000, np.float32)]])
def test_a_guard_with_nothing_to_compare_refuses_to_vouch(clips, energy):
    guard = Guard(GuardOptions(), Never(), weights="pkg:no_such_package/model", offline=True)
    strength, report = guard.judge(1.0, lambda s: (clips, 0.0, 0), clips)
    assert (strength, report.taken) == (0.0, "input")
    assert report.trials[-1].failed == ("vouched",)


def test_silence_needs_nobody_to_vouch_for_it():
    strength, report = Guard().judge(0.0, lambda s: ([], None, 0), [])
    assert (strength, report.taken) == (0.0, "asked")


def test_channels_that_cancel_each_other_are_compared():
    from speech_peft.restore.playback import clips_of

    mono = spoken()
    mixture = SimpleNamespace(rate=16_000, read=lambda blend, first, count: np.stack([mono, -mono], 1))
    (clip,) = clips_of(mixture, None, [(0, len(mono))])
    assert np.array_equal(clip, mono)


def test_what_cannot_be_measured_is_said_and_stops_nothing(energy):
    guard = Guard(GuardOptions(), Never(), weights="pkg:no_such_package/model", offline=True)
    clip = [spoken()]
    strength, report = guard.judge(1.0, lambda s: (clip, 0.0, 0), clip)
    assert (strength, report.taken) == (1.0, "asked")
    notes = {check.name: check.note for check in report.trials[0].checks}
    assert "no voice at all" in notes["similarity"]
    assert "no_such_package" in notes["words"]


def test_level_and_length_are_checked_before_anything_dear():
    guard = Guard(GuardOptions(), Never(), lambda clips, languages: pytest.fail("asked for words"))
    clip = [np.zeros(16_000, np.float32)]
    strength, report = guard.judge(1.0, lambda s: (clip, -3.0 * s, 0), clip)
    assert (strength, report.taken) == (0.0, "input")
    assert [trial.failed for trial in report.trials] == [("level",)] * 3
    assert guard.judge(1.0, lambda s: (clip, 0.0, -900), clip)[1].trials[0].failed == ("length",)
    assert guard.judge(0.0, lambda s: pytest.fail("nothing is made"), clip)[0] == 0.0


def test_levels_of_the_guard():
    assert guard_of("off") is None
    assert guard_of("sound").options.level == "sound"
    with pytest.raises(ConfigError, match="guard"):
        guard_of("maybe")
