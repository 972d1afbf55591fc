"""The classes of a run: which clips show them, and the errors that name the row or the folder."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech_peft.audio.manifest import Row
from speech_peft.backbones import families
from speech_peft.errors import ConfigError
from speech_peft.recipe import config
from speech_peft.recipe.tasks import ClassifyConfig
from speech_peft.train import fit
from speech_peft.train.data import labels
from tests import tiny


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()


def row(id, label):
    return Row(id, Path(f"{id}.wav"), label=label)


def folder(top, **classes):
    """Class folders of so many clips each."""
    for label, clips in classes.items():
        (top / label).mkdir(parents=True)
        for i in range(clips):
            soundfile.write(top / label / f"{i}.wav", 0.1 * np.ones(8000), 16000)
    return top


def build(tmp_path, train_path, *overrides, **task):
    over = [f"data.train={train_path}", *overrides]
    read = config.read(str(tiny.recipe(tmp_path, task={"name": "classify", **task})), over)
    return fit.build(read, config.methods_of(read))


def manifest(tmp_path, rows, name="m.jsonl"):
    for i, fields in enumerate(rows):
        if not (tmp_path / f"{i}.wav").exists():
            soundfile.write(tmp_path / f"{i}.wav", 0.1 * np.ones(8000), 16000)
        fields.setdefault("audio", f"{i}.wav")
        fields.setdefault("id", str(i))
    (tmp_path / name).write_text("".join(json.dumps(fields) + "\n" for fields in rows))
    return tmp_path / name


def test_class_folders_train_as_they_are(tmp_path):
    task, data = build(tmp_path, folder(tmp_path / "sounds", cat=2, dog=3))
    assert data.labels == task.head.labels == ("cat", "dog")


def test_a_class_folder_without_a_readable_clip_is_named(tmp_path):
    top = folder(tmp_path / "sounds", cat=1, dog=1, empty=0)
    with pytest.raises(ConfigError, match=r"sounds/empty: class folder 'empty' has no readable recording"):
        build(tmp_path, top)
    (top / "empty" / "0.wav").write_bytes(b"not audio")
    with pytest.raises(ConfigError, match=r"class folder 'empty'.*row 'empty/0'"):
        build(tmp_path, top)


def test_a_class_whose_clips_are_all_unusable_names_the_first_and_why(tmp_path):
    rows = [{"label": "cat"}, {"label": "cat"}, {"label": "dog", "duration": 0.01}]
    with pytest.raises(ConfigError, match=r"no clip of the class 'dog' can be used.*row '2'.*lasts 0\.01 s"):
        build(tmp_path, manifest(tmp_path, rows))


def test_a_label_unseen_in_training_names_the_row(tmp_path):
    rows = [{"label": "cat"}, {"label": "dog"}, {"label": "dgo"}]
    train_path = manifest(tmp_path, rows[:2])
    valid = manifest(tmp_path, rows, "v.jsonl")
    with pytest.raises(
        ConfigError, match=r"data\.valid: row '2' .*'dgo'.*no training clip.*Did you mean 'dog'"
    ):
        build(tmp_path, train_path, f"data.valid={valid}")


def test_folders_that_differ_only_by_case_are_both_named(tmp_path):
    top = folder(tmp_path / "sounds", Dog=1, cat=1)
    rows = [
        {"label": "Dog", "audio": str(top / "Dog/0.wav")},
        {"label": "dog", "audio": str(top / "cat/0.wav")},
    ]
    with pytest.raises(ConfigError, match=r"'Dog' \(row '0'\) and 'dog' \(row '1'\) differ only by case"):
        build(tmp_path, manifest(tmp_path, rows))


def test_a_manifest_without_the_label_column_names_its_first_row(tmp_path):
    with pytest.raises(ConfigError, match=r"row '0'.*has no label"):
        build(tmp_path, manifest(tmp_path, [{}, {}]))


def test_several_labels_need_the_task_to_say_so(tmp_path):
    rows = [{"label": "cat;dog"}, {"label": "dog"}]
    with pytest.raises(ConfigError, match=r"row '0' has the label 'cat;dog'.*task\.multi_label=true"):
        build(tmp_path, manifest(tmp_path, rows))
    task, _ = build(tmp_path, manifest(tmp_path, rows), multi_label=True)
    assert labels.targets(["cat;dog", "dog"], task.head.labels).tolist() == [[1, 1], [0, 1]]


def test_one_class_alone_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nothing to tell apart"):
        build(tmp_path, manifest(tmp_path, [{"label": "cat"}, {"label": "cat"}]))


def test_the_order_of_classes_can_be_given_and_must_be_theirs(tmp_path):
    rows = [row("a", "cat"), row("b", "dog")]
    assert labels.classes(rows, ["dog", "cat"]) == ("dog", "cat")
    with pytest.raises(ConfigError, match=r"row 'a' has the label 'cat', which task\.labels has not"):
        labels.classes(rows, ["dog", "cart"])
    with pytest.raises(ConfigError, match=r"task\.labels: no training clip has the label 'bird'"):
        labels.classes(rows, ["dog", "cat", "bird"])


def test_columns_tell_training_from_validation(tmp_path):
    rows = [{"label": label, "fold": fold} for fold in (1, 2, 3) for label in ("cat", "dog")]
    where = ["data.train_where={fold: [1, 2]}", "data.valid_where={fold: [3]}"]
    _, data = build(tmp_path, manifest(tmp_path, rows), *where)
    assert [r.id for r in data.train_clips.rows] == ["0", "1", "2", "3"]
    assert [r.id for r in data.valid_clips.rows] == ["4", "5"]
    with pytest.raises(ConfigError, match=r"data\.valid_where: row '2' .* is a training clip too"):
        build(tmp_path, tmp_path / "m.jsonl", where[0], "data.valid_where={fold: [2, 3]}")


def test_few_clips_of_each_class_are_part_of_more_and_depend_on_the_seed():
    rows = [row(f"{label}{i}", label) for label in "abc" for i in range(20)]
    chosen = {n: {r.id for r in labels.few(rows, n, seed=0)} for n in (1, 2, 8, 50)}
    assert [len(chosen[n]) for n in (1, 2, 8, 50)] == [3, 6, 24, 60]
    assert chosen[1] < chosen[2] < chosen[8]
    assert {r.id for r in labels.few(rows, 8, seed=1)} != chosen[8]
    assert {r.id for r in labels.few(rows[:40], 8, seed=0)} == {id for id in chosen[8] if id[0] != "c"}


def test_part_of_a_sorted_manifest_has_every_class():
    rows = [row(f"{label}{i}", label) for label in "abcde" for i in range(10)]
    assert {r.label for r in labels.mixed(rows, 5)} == set("abcde")
    assert len(labels.mixed(rows, 7)) == 7


def test_balanced_classes_weigh_the_same():
    rows = [row(str(i), "cat" if i < 9 else "dog") for i in range(12)]
    config = ClassifyConfig(name="classify", class_weights="balanced")
    weights = labels.weights(rows, ("cat", "dog"), config)
    assert (9 * weights[0]).item() == pytest.approx(6)
    assert (3 * weights[1]).item() == pytest.approx(6)
    several = labels.weights(rows, ("cat", "dog"), config.model_copy(update={"multi_label": True}))
    assert several.tolist() == pytest.approx([3 / 9, 9 / 3])
