"""Words that are added, lost or changed: what the guard lets pass, and what not."""

import numpy as np
import pytest

from speech_peft.errors import ConfigError
from speech_peft.infer.guard import Guard, GuardOptions, Limits, Words, compare, guard_of

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
        (SAID + " eleven", -0.05, []),
        (SAID + " eleven", -0.3, ["confidence"]),
        (SAID + " a b c", -0.05, ["insertions"]),
        (SAID + " a b c", 0.1, []),
        (SAID + " a b c d e f", 0.1, ["insertions"]),
        ("one two three", -0.05, ["deletions", "disagreement"]),
        ("one two three", 0.2, ["deletions"]),
        ("one two three four five six", 0.2, []),
        ("", 0.0, ["deletions", "disagreement", "confidence"]),
    ],
)
def test_words_may_change_only_where_they_are_heard_more_surely(after, sure, names):
    assert failed(SAID, after, sure) == names


def test_words_out_of_nothing_and_loops_fail():
    assert "insertions" in failed("", "thank you", sure=0.5)
    assert "loop" in failed(SAID, SAID, loop=True)


class Never:
    name, limit = "toy", 0.5

    def __call__(self, clips):
        raise RuntimeError("no voice at all")


def test_what_cannot_be_measured_is_said_and_stops_nothing():
    guard = Guard(GuardOptions(), Never(), weights="pkg:no_such_package/model", offline=True)
    clip = [np.zeros(16_000, np.float32)]
    strength, report = guard.judge(1.0, lambda s: (clip, 0.0, 0), clip)
    assert (strength, report.taken) == (1.0, "asked")
    notes = {check.name: check.note for check in report.trials[0].checks}
    assert "no voice at all" in notes["similarity"]
    assert "no_such_package" in notes["words"]


def test_level_and_length_are_checked_before_anything_dear():
    guard = Guard(GuardOptions(), Never(), lambda clips: pytest.fail("asked for words"))
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
