"""Runs of any task: paired by ids, laid side by side, written and read back."""

from speech_peft.predictions import words as predictions
from speech_peft.predictions.run import Run, about, by_recording, first, paired, save
from speech_peft.predictions.words import Prediction


def run(name: str, **heard: str) -> Run[Prediction]:
    rows = tuple(Prediction(id, f"{id}.wav", 1.0, 0.1, "said", text) for id, text in heard.items())
    return Run(name, rows, 2.5, {"adapter": "x"}, {"cores": 1})


def test_runs_are_paired_by_the_recordings_that_both_have_in_the_order_of_the_later():
    old, new = run("old", a="1", b="2", c="3"), run("new", c="4", d="5", a="6")
    assert [(was.pred_text, now.pred_text) for was, now in paired(old, new)] == [("3", "4"), ("1", "6")]


def test_every_recording_is_listed_once_with_the_runs_that_have_it():
    rows = by_recording([run("old", a="1", b="2"), run("new", b="3", c="4")])
    assert [(first(row).id, list(row)) for row in rows] == [
        ("a", ["old"]),
        ("b", ["old", "new"]),
        ("c", ["new"]),
    ]


def test_a_saved_run_comes_back(tmp_path):
    own = run("phone", a="1", b="2")
    save(tmp_path, own, predictions.dumps)
    file = tmp_path / "preds.jsonl"
    assert Run("phone", tuple(predictions.read(file)), **about(file)) == own


def test_predictions_alone_are_a_run_about_which_nothing_is_known(tmp_path):
    assert about(tmp_path / "preds.jsonl") == {}
