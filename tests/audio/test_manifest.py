"""Every common way of listing utterances gives the same rows."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from speech_peft.audio import io, manifest
from speech_peft.audio.manifest import Row
from speech_peft.errors import ConfigError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        io.save(path, np.zeros(8, np.float32), 16_000)


@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.gz"])
def test_what_is_written_is_read(tmp_path, name):
    rows = [
        Row("a", tmp_path / "x/a.wav", 0.5, 1.25, "naïve “text”", speaker="s", lang="en", extra={"snr": 3}),
        Row("b", tmp_path.parent / "b.wav", label="dog", target_audio=tmp_path / "c.wav"),
    ]
    manifest.write(tmp_path / name, rows)
    assert manifest.read(tmp_path / name) == rows


def test_paths_below_the_manifest_are_relative_so_that_the_folder_can_move(tmp_path):
    manifest.write(tmp_path / "m.jsonl", [Row("a", tmp_path / "x/a.wav")])
    assert json.loads((tmp_path / "m.jsonl").read_text())["audio_filepath"] == "x/a.wav"


def test_nemo_names_are_understood(tmp_path):
    line = {"audio_filepath": "a.wav", "offset": 1.0, "duration": 2, "text": "hi", "other": 1}
    with gzip.open(tmp_path / "m.json.gz", "wt") as file:
        file.write(json.dumps(line) + "\n")
    assert manifest.read(tmp_path / "m.json.gz") == [
        Row("a", tmp_path / "a.wav", 1.0, 2.0, "hi", extra={"other": 1})
    ]


def test_common_voice_quotes_stay_in_the_text(tmp_path):
    (tmp_path / "m.tsv").write_text('client_id\tpath\tsentence\nu\tc.mp3\t"Yes," he said.\n')
    (row,) = manifest.read(tmp_path / "m.tsv")
    assert (row.speaker, row.text) == ("u", '"Yes," he said.')


def test_csv_columns_are_found_by_name_and_category_beats_target(tmp_path):
    (tmp_path / "esc50.csv").write_text("filename,fold,target,category\n1.wav,1,0,dog\n")
    (row,) = manifest.read(tmp_path / "esc50.csv")
    assert (row.audio, row.label, row.extra) == (tmp_path / "1.wav", "dog", {"fold": "1", "target": "0"})


def test_named_column_beats_detection(tmp_path):
    (tmp_path / "m.csv").write_text("path;text;better\na.wav;bad;good\n")
    assert manifest.read(tmp_path / "m.csv", {"text": "better"})[0].text == "good"


def test_unfound_audio_column_lists_the_columns(tmp_path):
    (tmp_path / "m.csv").write_text("recording,words\na.wav,hi\n")
    with pytest.raises(ConfigError, match=r"m\.csv:2: no audio path; columns found: recording, words"):
        manifest.read(tmp_path / "m.csv")
    with pytest.raises(ConfigError, match="no column 'wave' for audio; found: recording, words"):
        manifest.read(tmp_path / "m.csv", {"audio": "wave"})


def test_folder_with_metadata_reads_file_name(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,transcription\na.wav,hello\n")
    assert manifest.read(tmp_path)[0].text == "hello"


def test_class_per_folder_labels_by_folder(tmp_path):
    touch(tmp_path / "dog/1.wav", tmp_path / "cat/1.wav", tmp_path / "cat/2.flac")
    found = [(row.id, row.label) for row in manifest.read(tmp_path)]
    assert found == [("cat/1", "cat"), ("cat/2", "cat"), ("dog/1", "dog")]


def test_same_stem_and_other_suffix_are_two_recordings(tmp_path):
    touch(tmp_path / "a.wav", tmp_path / "a.flac", tmp_path / "b.wav")
    assert [row.id for row in manifest.read(tmp_path)] == ["a.flac@0.000", "a.wav@0.000", "b"]


def test_kaldi_folder_with_segments(tmp_path):
    (tmp_path / "wav.scp").write_text("rec1 audio/one.wav\n")
    (tmp_path / "segments").write_text("u1 rec1 0.5 2.0\nu2 rec1 2.0 -1\n")
    (tmp_path / "text").write_text("u1 hello there\n")
    (tmp_path / "utt2spk").write_text("u1 anna\nu2 anna\n")
    one = Row("u1", tmp_path / "audio/one.wav", 0.5, 1.5, "hello there", speaker="anna")
    assert manifest.read(tmp_path) == [one, replace(one, id="u2", start=2.0, duration=None, text=None)]


def test_kaldi_command_is_refused_and_not_run(tmp_path):
    (tmp_path / "wav.scp").write_text(f"u1 touch {tmp_path}/ran |\n")
    with pytest.raises(ConfigError, match=r"wav\.scp:1: .* is a shell command"):
        manifest.read(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_pairs_match_by_relative_stem(tmp_path):
    touch(tmp_path / "noisy/s/1.wav", tmp_path / "clean/s/1.flac")
    (row,) = manifest.read(tmp_path)
    assert (row.id, row.target_audio) == ("s/1", tmp_path / "clean/s/1.flac")


def test_pairs_without_partner_are_listed(tmp_path):
    touch(tmp_path / "noisy/1.wav", tmp_path / "clean/1.wav", tmp_path / "noisy/2.wav")
    with pytest.raises(ConfigError, match=r"(?s)1 recordings have no partner:.*noisy/2\.wav"):
        manifest.read_pairs(tmp_path / "noisy", tmp_path / "clean")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"audio": "a.wav", "id": "x"}\n\n{"audio": "b.wav", "id": "x"}\n', "m.jsonl:3: id 'x' .* line 1"),
        ('{"audio": "a.wav"}\nnot json\n', "m.jsonl:2: not a JSON object"),
        ("[1, 2]\n", "m.jsonl:1: expected an object"),
        ('{"audio": "a.wav", "duration": -1}\n', "m.jsonl:1: duration is -1"),
        ('{"audio": "a.wav", "offset": "soon"}\n', "m.jsonl:1: start is 'soon'"),
        ("\n", "lists no recording"),
    ],
)
def test_error_names_the_line(tmp_path, content, message):
    (tmp_path / "m.jsonl").write_text(content)
    with pytest.raises(ConfigError, match=message):
        manifest.read(tmp_path / "m.jsonl")


def test_unknown_field_in_columns_is_corrected():
    with pytest.raises(ConfigError, match="Did you mean 'text'"):
        manifest.read("m.jsonl", {"txt": "sentence"})


def test_row_numbers_of_pandas_are_no_column(tmp_path):
    (tmp_path / "m.csv").write_text(",path,label\n0,a.wav,dog\n")
    assert manifest.read(tmp_path / "m.csv") == [Row("a", tmp_path / "a.wav", label="dog")]


def test_row_with_a_cell_too_many_is_named(tmp_path):
    (tmp_path / "m.csv").write_text("path,label\na.wav,dog\nb.wav,dog,cat\n")
    with pytest.raises(ConfigError, match=r"m\.csv:3: more or fewer cells than the header"):
        manifest.read(tmp_path / "m.csv")


@pytest.mark.parametrize("label", ['"dog;wind"', '["dog", "wind"]'])
def test_several_labels_are_one_string(tmp_path, label):
    (tmp_path / "m.jsonl").write_text(f'{{"audio": "a.wav", "label": {label}}}\n')
    assert manifest.read(tmp_path / "m.jsonl")[0].label == "dog;wind"


def test_kaldi_end_that_is_no_number_is_named(tmp_path):
    (tmp_path / "wav.scp").write_text("rec1 one.wav\n")
    (tmp_path / "segments").write_text("u1 rec1 0.5 soon\n")
    with pytest.raises(ConfigError, match=r"segments:1: end is 'soon'"):
        manifest.read(tmp_path)
