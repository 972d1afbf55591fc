"""What a terminal shows of scores."""

from speech_peft.bench.table import table


def test_a_run_is_one_line_whatever_its_name_holds():
    rate = {"rate": 0.1, "low": 0.0, "high": 0.2, "substitutions": 1, "deletions": 0, "insertions": 0}
    run = {"n": 10, "wer": rate, "cer": rate, "rtfx": 1.0, "failed": 0}
    scores = {
        "task": "asr",
        "metric": "wer",
        "runs": {"a\nb\x1b[2J": run},
        "comparisons": [],
        "normaliser": {"id": "basic", "version": 1, "met": {}},
    }
    assert len(table(scores).split("\n")) == 3
    assert "\x1b" not in table(scores)
