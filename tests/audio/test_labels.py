"""Rows to learn classes from are refused with the row that is wrong."""

import numpy as np
import pytest

from speech_peft.audio import io, manifest
from speech_peft.audio.manifest import Row
from speech_peft.errors import ConfigError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        io.save(path, np.zeros(8, np.float32), 16_000)


def test_class_folders_pass_as_they_are(tmp_path):
    touch(tmp_path / "dog/1.wav", tmp_path / "cat/1.wav")
    (tmp_path / ".cache").mkdir()
    rows = manifest.read(tmp_path)
    assert manifest.labelled(rows, tmp_path) == rows


def test_manifest_without_the_label_column_names_its_first_row(tmp_path):
    (tmp_path / "m.csv").write_text("path,text\na.wav,hi\n")
    with pytest.raises(ConfigError, match=r"m\.csv: row 'a' .* has no label\. Give a manifest with a column"):
        manifest.labelled(manifest.read(tmp_path / "m.csv"), tmp_path / "m.csv")


def test_row_whose_label_is_empty_is_named(tmp_path):
    rows = [Row("a", tmp_path / "a.wav", label="dog"), Row("b", tmp_path / "b.wav", label="")]
    with pytest.raises(ConfigError, match="row 'b'"):
        manifest.labelled(rows, tmp_path / "m.csv")


def test_clip_of_no_class_is_one_of_several_labels_only(tmp_path):
    (tmp_path / "m.csv").write_text("path,label\na.wav,dog;wind\nb.wav,\n")
    rows = manifest.read(tmp_path / "m.csv")
    assert [row.label for row in manifest.labelled(rows, "m.csv", multi_label=True)] == ["dog;wind", ""]
    with pytest.raises(ConfigError, match=r"row 'b' .* has no label"):
        manifest.labelled(rows, "m.csv")


def test_recording_beside_the_class_folders_is_named(tmp_path):
    touch(tmp_path / "dog/1.wav", tmp_path / "stray.wav")
    with pytest.raises(ConfigError, match=r"has no label.*folder of class folders"):
        manifest.labelled(manifest.read(tmp_path), tmp_path)


@pytest.mark.parametrize("labels", [("Dog", "dog"), ("cat;Dog", "dog; cat")])
def test_labels_that_differ_only_by_case_name_both_rows(tmp_path, labels):
    rows = [
        Row(name, tmp_path / f"{name}.wav", label=label) for name, label in zip("ab", labels, strict=True)
    ]
    with pytest.raises(ConfigError, match=r"'Dog' \(row 'a'\) and 'dog' \(row 'b'\) differ only by case"):
        manifest.labelled(rows, tmp_path / "m.csv")


def test_two_class_folders_that_differ_only_by_case_are_refused(tmp_path):
    touch(tmp_path / "Dog/1.wav", tmp_path / "dog/2.wav")
    if len(list(tmp_path.iterdir())) == 1:
        pytest.skip("this file system makes one folder of them")
    with pytest.raises(ConfigError, match=r"'Dog' \(row 'Dog/1'\) and 'dog' \(row 'dog/2'\)"):
        manifest.labelled(manifest.read(tmp_path), tmp_path)


def test_class_folder_without_a_recording_is_named(tmp_path):
    touch(tmp_path / "dog/1.wav")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/notes.txt").write_text("none yet")
    with pytest.raises(ConfigError, match=r"class folder 'cat' has no readable recording \(it holds no"):
        manifest.labelled(manifest.read(tmp_path), tmp_path)


def test_class_folder_that_is_a_link_is_not_left_out_in_silence(tmp_path):
    touch(tmp_path / "data/dog/1.wav", tmp_path / "elsewhere/1.wav")
    (tmp_path / "data/cat").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"'cat' has no readable recording .*links are not followed"):
        manifest.labelled(manifest.read(tmp_path / "data"), tmp_path / "data")


def test_class_folder_of_broken_recordings_names_a_row_and_the_reason(tmp_path):
    touch(tmp_path / "dog/1.wav", tmp_path / "cat/1.wav")
    (tmp_path / "cat/1.wav").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"class folder 'cat' .*row 'cat/1': is empty"):
        manifest.labelled(manifest.read(tmp_path), tmp_path)


def test_one_broken_recording_of_a_class_is_no_reason_to_refuse_it(tmp_path):
    touch(tmp_path / "dog/2.wav")
    (tmp_path / "dog/1.wav").write_bytes(b"")
    assert len(manifest.labelled(manifest.read(tmp_path), tmp_path)) == 2


def test_class_whose_rows_were_not_chosen_is_no_empty_folder(tmp_path):
    touch(tmp_path / "dog/1.wav", tmp_path / "cat/1.wav")
    assert len(manifest.labelled(manifest.read(tmp_path)[:1], tmp_path)) == 1
