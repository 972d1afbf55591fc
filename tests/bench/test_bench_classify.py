"""`bench classify`: from labelled clips to a page, with classifiers that answer from a script."""

import json

import numpy as np
import pytest
import yaml

from speech_peft.audio import io
from speech_peft.bench import __main__ as bench
from speech_peft.bench.runs import classify as class_benchmark
from speech_peft.predictions.classes import ClassPrediction, dumps, read

LABELS = ("cat", "dog", "rain")
CLIPS = 12


def run(*arguments) -> int:
    return bench.main([str(argument) for argument in arguments])


def scores(out):
    return json.loads((out / "scores.json").read_text())


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def rows(tmp_path):
    """Twelve clips in two folds; the classes take turns."""
    found = []
    for at in range(CLIPS):
        io.save(tmp_path / f"c{at}.wav", np.full(8_000, 0.01 * (at + 1), np.float32), 16_000)
        label = LABELS[at % 3]
        found.append({"id": f"c{at}", "audio_filepath": f"c{at}.wav", "label": label, "fold": 1 + at // 6})
    return found


@pytest.fixture
def manifest(tmp_path, rows):
    return write(tmp_path / "all.jsonl", rows)


@pytest.fixture
def make(tmp_path, manifest):
    """Adapter folders, with the recipe that made them."""

    def make(name, folds=(), multi_label=False, labels=LABELS, **data):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        head = {"classify": {"labels": list(labels), "multi_label": multi_label}}
        (folder / "adapter.json").write_text(json.dumps({"head_config": head}))
        if folds:
            data = {"train": str(manifest), "train_where": {"fold": list(folds)}, **data}
        if data:
            (folder / "recipe.yaml").write_text(yaml.safe_dump({"data": data, "adapters": {}}))
        return folder

    return make


@pytest.fixture
def opened(monkeypatch):
    """What each adapter was given to hear. Those called `poor` take every dog for a cat, surely."""
    heard = []

    def open_scripted(adapter, settings):
        def evaluate(rows):
            heard.append((adapter.parent.name, adapter.name, [row.id for row in rows]))
            return [answer(row, adapter.name) for row in rows]

        return evaluate

    def answer(row, name):
        common = {"audio_filepath": str(row.audio), "label": row.label or "", "columns": dict(row.extra)}
        if "broken" in row.audio.name:
            return ClassPrediction(row.id, **common, end=0.5, error="is not audio")
        said = "cat" if name == "poor" and row.label == "dog" else row.label
        given = {label: 0.9 if label == said else 0.05 for label in LABELS}
        return ClassPrediction(row.id, **common, probabilities=given, end=0.5)

    monkeypatch.setattr(class_benchmark, "open_evaluate", open_scripted)
    return heard


def test_adapters_are_run_scored_and_compared(make, manifest, opened, tmp_path, capsys):
    poor, good, out = make("poor"), make("good"), tmp_path / "out"
    assert run("classify", "--data", manifest, "--adapter", poor, "--adapter", good, "-o", out) == 0
    found = scores(out)
    assert (found["task"], found["metric"], sorted(found["labels"])) == ("classify", "accuracy", list(LABELS))
    worse, better = found["runs"]["poor"], found["runs"]["good"]
    assert (worse["accuracy"]["rate"], better["accuracy"]["rate"]) == (8 / 12, 1)
    assert worse["macro_f1"]["rate"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert worse["ece"]["rate"] == pytest.approx(0.9 - 8 / 12)
    at = {name: index for index, name in enumerate(found["labels"])}
    assert worse["confusion"][at["dog"]][at["cat"]] == 4
    (pair,) = found["comparisons"]
    assert (pair["better"], pair["worse"], pair["same"]) == (4, 0, 8)
    assert pair["delta"] == pytest.approx(4 / 12)
    assert pair["mcnemar_p"] == pytest.approx(2 / 2**4)
    row = json.loads((out / "poor" / "preds.jsonl").read_text().splitlines()[1])
    assert {"id", "audio_filepath", "label", "start", "end", "top", "probabilities"} <= row.keys()
    assert (row["label"], row["top"][0]) == ("dog", ["cat", 0.9])
    text = (out / "report.html").read_text()
    assert text.count("data:audio/mpeg") == CLIPS
    assert "poor → good, 12 clips: 4 better, 0 worse; Δaccuracy +33.33 points" in capsys.readouterr().out


def test_every_fold_is_heard_by_its_own_adapter_alone(make, manifest, opened, tmp_path):
    for fold in (1, 2):
        make(f"run-{fold}/{'poor' if fold == 2 else 'good'}", folds=[3 - fold])
        (tmp_path / f"run-{fold}" / "pets").symlink_to(
            tmp_path / f"run-{fold}" / ("poor" if fold == 2 else "good")
        )
    pattern = tmp_path / "run-{fold}" / "pets"
    assert run("classify", "--data", manifest, "--folds", f"both={pattern}", "-o", tmp_path / "out") == 0
    first, second = [f"c{at}" for at in range(6)], [f"c{at}" for at in range(6, 12)]
    assert [call for call in opened if len(call[2]) > 4] == [
        ("run-1", "pets", first),
        ("run-2", "pets", second),
    ]
    folds = scores(tmp_path / "out")["runs"]["both"]["folds"]
    assert (folds["column"], list(folds["values"])) == ("fold", ["1", "2"])
    assert folds["over_folds"]["accuracy"]["mean"] == 1.0


def test_scores_of_folds_have_mean_and_deviation(tmp_path, rows):
    """Fold 1 all right, fold 2 half: what a cross-validation's table prints."""
    items = [
        ClassPrediction(
            row["id"],
            row["audio_filepath"],
            row["label"],
            {"cat": 0.8, "dog": 0.1, "rain": 0.1}
            if row["fold"] == 2
            else {label: float(label == row["label"]) for label in LABELS},
            columns={"fold": row["fold"]},
        )
        for row in rows
    ]
    folder = tmp_path / "cv"
    folder.mkdir()
    (folder / "preds.jsonl").write_text(dumps(items))
    (folder / "run.json").write_text(json.dumps({"config": {"fold_column": "fold"}}))
    assert run("score", folder, "-o", tmp_path / "out") == 0
    found = scores(tmp_path / "out")["runs"]["cv"]
    one, two = found["folds"]["values"].values()
    assert (one["accuracy"], two["accuracy"]) == (1, 1 / 3)
    over = found["folds"]["over_folds"]["accuracy"]
    assert (over["mean"], over["deviation"]) == pytest.approx((2 / 3, (2 / 9) ** 0.5))
    # Fold 2 ranks nothing: its scores of another model do not mix with those of fold 1.
    assert found["map"]["rate"] == pytest.approx((1 + 1 / 3) / 2)


def test_a_fold_without_its_adapter_is_named(make, manifest, opened, tmp_path, capsys):
    make("a/b/run-1/pets", folds=[2])
    pattern = tmp_path / "a/b/run-{fold}/pets"
    assert run("classify", "--data", manifest, "--folds", pattern, "-o", tmp_path / "out") == 2
    assert "no adapter for fold 2" in capsys.readouterr().err
    where = ("--where", "fold=1")
    assert run("classify", "--data", manifest, *where, "--folds", pattern, "-o", tmp_path / "out") == 0
    assert list(scores(tmp_path / "out")["runs"]) == ["run-pets"]


@pytest.mark.parametrize(
    ("data", "word"),
    [
        ({"folds": [1]}, "trained on 6 of the 6 test rows (first: 'c0')"),
        ({"folds": [1, 2]}, "trained on 6 of the 6 test rows"),
        ({"folds": [2], "valid_where": {"fold": [1]}}, "was validated on 6 of the 6"),
    ],
)
def test_an_adapter_that_has_seen_the_test_rows_is_refused(
    data, word, make, manifest, opened, tmp_path, capsys
):
    arguments = ("--data", manifest, "--where", "fold=1", "--adapter", make("pets", **data))
    assert run("classify", *arguments, "-o", tmp_path / "out") == 2
    assert word in capsys.readouterr().err
    assert not opened


def test_an_adapter_of_other_rows_passes_and_the_check_is_written_down(make, manifest, opened, tmp_path):
    arguments = ("--data", manifest, "--where", "fold=1", "--adapter", make("pets", folds=[2]))
    assert run("classify", *arguments, "-o", tmp_path / "out") == 0
    run_ = scores(tmp_path / "out")["runs"]["pets"]
    assert (run_["n"], run_["config"]["held_out"]) == (6, "ok")


def test_what_cannot_be_checked_is_said(make, manifest, opened, tmp_path, capsys):
    gone = make("gone", train=str(tmp_path / "elsewhere.jsonl"))
    assert run("classify", "--data", manifest, "--adapter", gone, "-o", tmp_path / "out") == 0
    assert "cannot tell whether it has seen these clips" in capsys.readouterr().err
    assert "not on this machine" in scores(tmp_path / "out")["runs"]["gone"]["config"]["held_out"]


def test_a_label_unseen_in_training_names_its_row(make, rows, opened, tmp_path, capsys):
    rows[4]["label"] = "dgo"
    path = write(tmp_path / "typo.jsonl", rows)
    assert run("classify", "--data", path, "--adapter", make("pets"), "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "row 'c4': label 'dgo'" in error
    assert "Did you mean 'dog'?" in error
    assert not opened


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        ([], "--adapter"),
        (["--adapter", "nowhere"], "no adapter folder"),
        (["--folds", "runs/pets"], "{fold}"),
        (["--adapter", "PETS", "--where", "fold"], "COLUMN=VALUE"),
        (["--adapter", "PETS", "--where", "fold=9"], "fold 9"),
        (["--adapter", "PETS", "--slice-by", "rooom"], "'rooom'"),
        (["--folds", "x-{fold}", "--fold-column", "part"], "has no 'part'"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(
    extra, word, make, manifest, opened, tmp_path, capsys
):
    pets = str(make("pets"))
    extra = [pets if one == "PETS" else one for one in extra]
    assert run("classify", "--data", manifest, "-o", tmp_path / "out", *extra) == 2
    assert word in capsys.readouterr().err
    assert not opened


def test_an_adapter_for_recognition_is_no_classifier(make, manifest, opened, tmp_path, capsys):
    folder = make("words")
    (folder / "adapter.json").write_text(json.dumps({"head_config": {"ctc": {}}}))
    assert run("classify", "--data", manifest, "--adapter", folder, "-o", tmp_path / "out") == 2
    assert "is no classifier; its heads: ctc" in capsys.readouterr().err


def test_rows_without_label_are_refused(make, rows, opened, tmp_path, capsys):
    del rows[3]["label"]
    path = write(tmp_path / "part.jsonl", rows)
    assert run("classify", "--data", path, "--adapter", make("pets"), "-o", tmp_path / "out") == 2
    assert "'c3'" in capsys.readouterr().err


def test_one_unreadable_clip_counts_as_wrong_and_exits_with_3(make, rows, opened, tmp_path):
    (tmp_path / "broken.wav").write_text("no audio")
    rows.append({"id": "b", "audio_filepath": "broken.wav", "label": "dog", "fold": 1})
    path = write(tmp_path / "more.jsonl", rows)
    assert run("classify", "--data", path, "--adapter", make("pets"), "-o", tmp_path / "out") == 3
    found = scores(tmp_path / "out")["runs"]["pets"]
    assert (found["failed"], found["accuracy"]["rate"]) == (1, 12 / 13)
    assert "is not audio" in (tmp_path / "out" / "report.html").read_text()


def test_several_classes_at_once_lead_with_map(make, rows, opened, tmp_path, capsys):
    rows[0]["label"] = "cat;rain"
    path = write(tmp_path / "multi.jsonl", rows)
    items = [
        ClassPrediction(row["id"], "", row["label"], {"cat": 0.9, "dog": 0.2, "rain": 0.6}, multi_label=True)
        for row in rows
    ]
    (tmp_path / "preds.jsonl").write_text(dumps(items))
    assert read(tmp_path / "preds.jsonl") == items
    assert run("score", tmp_path / "preds.jsonl", "-o", tmp_path / "out") == 0
    found = scores(tmp_path / "out")
    (one,) = found["runs"].values()
    assert (found["metric"], one["accuracy"]["correct"], one["confusion"]) == ("map", 1, None)
    assert run("check", tmp_path / "out" / "scores.json", "--min-map", 1) == 0
    both = ("--adapter", make("one"), "--adapter", make("many", multi_label=True))
    assert run("classify", "--data", path, *both, "-o", tmp_path / "out") == 2
    assert "is multi-label and" in capsys.readouterr().err


@pytest.fixture
def measured(make, manifest, opened, tmp_path):
    out = tmp_path / "measured"
    arguments = ("--adapter", make("poor"), "--adapter", make("good"))
    assert run("classify", "--data", manifest, *arguments, "-o", out) == 0
    return out


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (["--min-accuracy", "100"], 0),
        (["--run", "poor", "--min-accuracy", "66.6"], 0),
        (["--run", "poor", "--min-accuracy", "66.7"], 1),
        (["--run", "poor", "--min-macro-f1", "50", "--max-ece", "30", "--min-map", "10"], 0),
        (["--run", "poor", "--max-ece", "20"], 1),
        (["--max-wer", "5"], 2),
        ([], 2),
    ],
)
def test_check_exits_by_the_limits(limits, code, measured):
    assert run("check", measured / "scores.json", *limits) == code


def test_check_against_a_baseline_allows_so_many_points(measured, tmp_path, capsys):
    arguments = ("check", measured / "scores.json", "--run", "poor", "--baseline")
    assert run(*arguments, measured / "scores.json") == 0
    assert run("score", measured / "good", "-o", tmp_path / "old") == 0
    old = tmp_path / "old" / "scores.json"
    assert run(*arguments, old) == 1  # no run of that name: the last counts
    assert run(*arguments, old, "--max-regression", 34) == 0


def test_rescoring_changes_nothing(measured, tmp_path):
    assert run("score", measured / "poor", measured / "good", "-o", tmp_path / "again") == 0
    assert scores(tmp_path / "again") == scores(measured)


def test_diff_lists_the_most_confident_new_errors_first(measured, capsys):
    capsys.readouterr()
    assert run("diff", measured / "good", measured / "poor", "--top", 2) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "0 better, 4 worse; Δaccuracy -33.33 points" in lines[0]
    assert lines[1].split() == ["broke", "c1"]
    assert lines[4].split() == ["poor:", "cat", "0.90"]
    assert len(lines) == 9


def test_words_and_classes_are_not_scored_together(measured, tmp_path, capsys):
    write(tmp_path / "words.jsonl", [{"id": "a", "text": "a", "pred_text": "a"}])
    assert run("score", measured / "good", tmp_path / "words.jsonl", "-o", tmp_path / "out") == 2
    assert "score them apart" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ('{"label": "a", "probabilities": {}}', "no 'probabilities' and no 'error'"),
        ('{"probabilities": {"a": 1}}', "'label'"),
        ('{"label": "a", "probabilities": {"a": 1.5}}', "expected 0 to 1"),
        ('{"label": "a", "probabilities": {"a": "x"}}', "expected a number"),
        ('{"label": "b", "probabilities": {"a": 1}}', "label 'b' is not among"),
        ('{"id": "x", "label": "a", "probabilities": {"a": 1}}\n' * 2, "two predictions"),
    ],
)
def test_bad_predictions_are_refused_with_their_line(content, word, tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text(content)
    assert run("score", tmp_path / "p.jsonl", "-o", tmp_path / "out") == 2
    assert word in capsys.readouterr().err
