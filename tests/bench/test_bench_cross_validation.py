"""Trained, saved, opened and tested on its own fold: a cross-validation from the recipe to the table."""

import json

import pytest

from speech_peft.audio import manifest
from speech_peft.backbones import families
from speech_peft.bench import __main__ as bench
from speech_peft.classify.classifier import Classifier
from speech_peft.opening import loading
from tests import tiny


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)  # put back afterwards
    tiny.use_tiny_backbones()
    monkeypatch.setattr(loading, "open_backbone", families.open_backbone)


def test_adapters_of_a_cross_validation_are_tested_each_on_its_own_fold(tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()
    tiny.corpus(data, clips=15, seconds=0.5)
    for test, valid in ((1, 2), (2, 1)):
        path = tiny.recipe(tmp_path, task={"name": "classify"}, out=str(tmp_path / f"run-{test}"))
        where = (f"data.valid_where={{fold: [{valid}]}}", "data.train_where={fold: [3, 4, 5]}")
        tiny.run(path, *where, "trainer.max_steps=2")
    clips, out, pattern = str(data / "train.jsonl"), tmp_path / "out", str(tmp_path / "run-{fold}" / "a")

    def run(*arguments: str) -> int:
        return bench.main(["classify", "--data", clips, "-o", str(out), "--where", "fold=1,2", *arguments])

    assert run("--folds", f"a={pattern}") == 0
    found = json.loads((out / "scores.json").read_text())["runs"]["a"]
    assert (found["n"], found["failed"], found["config"]["held_out"]) == (4, 0, "ok")
    assert [cell["n"] for cell in found["folds"]["values"].values()] == [2, 2]

    # What the table rests on is what each fold's own adapter says, clip by clip.
    lines = (out / "a" / "preds.jsonl").read_text().splitlines()
    said = {row["id"]: row["probabilities"] for row in map(json.loads, lines)}
    for fold in (1, 2):
        rows = [row for row in manifest.read(clips) if row.extra["fold"] == fold]
        classifier = Classifier([pattern.format(fold=fold)])
        for row, result in zip(rows, classifier.classify([row.audio for row in rows]), strict=True):
            assert said[row.id] == pytest.approx(dict(result.heard["a"].top(9)), abs=1e-5)

    assert run("--adapter", pattern.format(fold=1)) == 2
    assert "was validated on 2 of the 4 test rows" in capsys.readouterr().err
