"""Corpora for classification, on tiny replicas of their published layouts."""

import numpy as np
import pytest

from speech_peft.audio import io, manifest
from speech_peft.errors import AudioError, ConfigError
from speech_peft.prepare.corpora import (
    class_folder,
    esc50,
    fluent_speech_commands,
    fsdd,
    speech_commands,
    urbansound8k,
)


def sound(path, seconds=0.1, rate=8000):
    path.parent.mkdir(parents=True, exist_ok=True)
    io.save(path, np.random.default_rng(0).uniform(-0.1, 0.1, round(seconds * rate)), rate)


def written(prepared):
    """Part -> its rows, as a recipe reads them."""
    return {name: manifest.read(part.path) if part.rows else [] for name, part in prepared.parts.items()}


# ---------------------------------------------------------------- ESC-50


@pytest.fixture
def esc(tmp_path):
    root = tmp_path / "ESC-50-master"
    (root / "meta").mkdir(parents=True)
    lines = ["filename,fold,target,category,esc10,src_file,take"]
    for fold, source, take, target, category, ten in [
        (1, 100032, "A", 0, "dog", True),
        (1, 17367, "A", 10, "rain", True),
        (2, 117271, "A", 0, "dog", True),
        (5, 9032, "B", 22, "clapping", False),
    ]:
        name = f"{fold}-{source}-{take}-{target}.wav"
        lines.append(f"{name},{fold},{target},{category},{ten},{source},{take}")
        sound(root / "audio" / name, 0.5, 44_100)
    (root / "meta/esc50.csv").write_text("\n".join(lines) + "\n")
    return root


def test_esc50_keeps_folds_and_sources_as_numbers(esc, tmp_path):
    rows = written(esc50.prepare(esc, tmp_path / "out"))["all"]
    assert [row.label for row in rows] == ["dog", "rain", "dog", "clapping"]
    assert (rows[3].id, rows[3].audio) == ("5-9032-B-22", esc / "audio/5-9032-B-22.wav")
    assert rows[3].extra == {"fold": 5, "target": 22, "src_file": 9032, "take": "B"}
    assert rows[3].duration == pytest.approx(0.5)
    assert [row.id for row in manifest.where(rows, {"fold": [2]}, "all")] == ["2-117271-A-0"]


def test_esc10_is_the_marked_part(esc, tmp_path):
    parts = written(esc50.prepare(esc, tmp_path / "out", esc10=True))
    assert list(parts) == ["esc10"]
    assert {row.label for row in parts["esc10"]} == {"dog", "rain"}


def test_recording_that_a_table_names_and_that_is_not_there_is_named(esc):
    (esc / "audio/1-17367-A-10.wav").unlink()
    with pytest.raises(AudioError, match=r"1-17367-A-10\.wav: no such file"):
        esc50.prepare(esc)


# ---------------------------------------------------------------- UrbanSound8K


def urban(root):
    (root / "metadata").mkdir(parents=True)
    (root / "metadata/UrbanSound8K.csv").write_text(
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n"
        "100032-3-0-0.wav,100032,0.0,0.317551,1,5,3,dog_bark\n"
        "100648-1-1-0.wav,100648,8.998279,10.052132,2,10,1,car_horn\n"
    )
    sound(root / "audio/fold5/100032-3-0-0.wav", 0.3)
    sound(root / "audio/fold10/100648-1-1-0.wav", 1.0)
    return root


def test_urbansound_excerpts_are_whole_files_in_their_folds(tmp_path):
    bark, horn = written(urbansound8k.prepare(urban(tmp_path / "UrbanSound8K")))["all"]
    assert (bark.label, bark.extra["fold"]) == ("dog_bark", 5)
    # 8.998 s is where the excerpt lay in its source: to start there would be behind its end.
    assert (horn.start, horn.duration) == (0.0, 1.0)
    assert horn.audio == tmp_path / "UrbanSound8K/audio/fold10/100648-1-1-0.wav"
    assert horn.extra == {"fsID": 100648, "salience": 2, "fold": 10, "classID": 1}
    assert len(io.load(horn.audio, None, horn.start, horn.duration).samples) == 8000


# ---------------------------------------------------------------- Speech Commands


def commands(root):
    for name in ("bed/0a7c2a8d_nohash_0", "bed/0a7c2a8d_nohash_1", "cat/00b01445_nohash_0"):
        sound(root / f"{name}.wav")
    sound(root / "wow/0a7c2a8d_nohash_0.wav")  # the same name as in another word's folder
    sound(root / "_background_noise_/pink_noise.wav")
    (root / "validation_list.txt").write_text("bed/0a7c2a8d_nohash_1.wav\n")
    (root / "testing_list.txt").write_text("cat/00b01445_nohash_0.wav\n")
    return root


def test_speech_commands_follow_the_official_lists_and_leave_the_noise(tmp_path):
    parts = written(speech_commands.prepare(commands(tmp_path / "sc"), tmp_path / "out"))
    assert {part: [row.id for row in rows] for part, rows in parts.items()} == {
        "train": ["bed/0a7c2a8d_nohash_0", "wow/0a7c2a8d_nohash_0"],
        "valid": ["bed/0a7c2a8d_nohash_1"],
        "test": ["cat/00b01445_nohash_0"],
    }
    (cat,) = parts["test"]
    assert (cat.label, cat.text, cat.speaker, cat.lang) == ("cat", "cat", "00b01445", "en")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat/00000000_nohash_0.wav\n", r"testing_list\.txt:1: there is no recording cat/00000000_nohash_0"),
        ("bed/0a7c2a8d_nohash_1.wav\n", r"testing_list\.txt:1: .* is in validation_list\.txt too"),
    ],
)
def test_list_that_cannot_be_followed_is_named_with_the_line(tmp_path, line, message):
    (commands(tmp_path) / "testing_list.txt").write_text(line)
    with pytest.raises(ConfigError, match=message):
        speech_commands.prepare(tmp_path)


# ---------------------------------------------------------------- Fluent Speech Commands


def fluent(root):
    (root / "data").mkdir(parents=True)
    for part, speaker, said, slots in [
        ("train", "2BqVo8kVB2Skwgyb", '"Lights, on"', "activate,lights,none"),
        ("valid", "4BrX8aDqK2cLZRYl", "Heat down in the bedroom", "decrease,heat,bedroom"),
        ("test", "4aGjX3AG5xcxeL7a", "Pause the music", "deactivate,music,none"),
    ]:
        path = f"wavs/speakers/{speaker}/de9ff364-6d1e-11e9.wav"
        (root / f"data/{part}_data.csv").write_text(
            ",path,speakerId,transcription,action,object,location\n" + f"0,{path},{speaker},{said},{slots}\n"
        )
        sound(root / path, rate=16_000)
    return root


def test_intent_is_the_triple_of_the_slots(tmp_path):
    parts = written(fluent_speech_commands.prepare(fluent(tmp_path / "fsc"), tmp_path / "out"))
    assert {part: rows[0].label for part, rows in parts.items()} == {
        "train": "activate/lights/none",
        "valid": "decrease/heat/bedroom",
        "test": "deactivate/music/none",
    }
    (row,) = parts["train"]
    assert (row.id, row.text) == ("2BqVo8kVB2Skwgyb/de9ff364-6d1e-11e9", "Lights, on")
    assert (row.speaker, row.audio.exists()) == ("2BqVo8kVB2Skwgyb", True)
    assert row.extra == {"action": "activate", "object": "lights", "location": "none"}


# ---------------------------------------------------------------- FSDD


def test_digits_are_tested_on_the_first_five_of_everyone(tmp_path):
    for speaker in ("jackson", "theo"):
        for index in (0, 4, 5, 49):
            sound(tmp_path / f"fsdd/recordings/7_{speaker}_{index}.wav")
    parts = written(fsdd.prepare(tmp_path / "fsdd", tmp_path / "out"))
    assert {row.extra["index"] for row in parts["test"]} == {0, 4}
    assert {row.extra["index"] for row in parts["train"]} == {5, 49}
    assert len(parts["all"]) == 8
    row = parts["test"][0]
    assert (row.id, row.label, row.text, row.speaker) == ("7_jackson_0", "7", "seven", "jackson")


@pytest.mark.parametrize("name", ["7/jackson_32", "seven/jackson_32", "7/7_jackson_32", "Seven/7_jackson_32"])
def test_digits_in_class_folders_are_the_same_digits(tmp_path, name):
    sound(tmp_path / f"{name}.wav")
    (row,) = written(fsdd.prepare(tmp_path, tmp_path / "out"))["all"]
    assert (row.label, row.speaker, row.extra) == ("7", "jackson", {"index": 32})


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("jackson_32.wav", "expected DIGIT_SPEAKER_INDEX"),
        ("7_jackson.wav", "expected DIGIT_SPEAKER_INDEX"),
        ("3/7_jackson_1.wav", "its name says 7, its folder says 3"),
    ],
)
def test_digit_that_is_not_told_or_told_twice_is_refused(tmp_path, name, message):
    sound(tmp_path / name)
    with pytest.raises(ConfigError, match=message):
        fsdd.prepare(tmp_path)


# ---------------------------------------------------------------- class folders


def test_named_groups_of_the_file_name_become_columns(tmp_path):
    for name in ("dog_bark/1-100032-A", "dog_bark/2-117271-A", "rain/1-17367-A"):
        sound(tmp_path / f"esc10/{name}.ogg")
    prepared = class_folder.prepare(tmp_path / "esc10", tmp_path / "out", pattern=r"(?P<fold>\d)-.*")
    rows = written(prepared)["all"]
    assert [(row.id, row.label, row.extra) for row in rows] == [
        ("dog_bark/1-100032-A", "dog_bark", {"fold": 1}),
        ("dog_bark/2-117271-A", "dog_bark", {"fold": 2}),
        ("rain/1-17367-A", "rain", {"fold": 1}),
    ]


def test_group_may_tell_the_label_of_a_flat_folder(tmp_path):
    sound(tmp_path / "7_jackson_32.wav")
    (row,) = written(class_folder.prepare(tmp_path, pattern=r"(?P<label>\d)_(?P<speaker>[a-z]+)_\d+"))["all"]
    assert (row.label, row.speaker, row.extra) == ("7", "jackson", {})


def test_class_folder_needs_no_pattern(tmp_path):
    sound(tmp_path / "dog/1.wav")
    assert written(class_folder.prepare(tmp_path))["all"][0].label == "dog"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        (r"(?P<fold>\d", "not a regular expression"),
        (r"(?P<fold>\d)", r"x1\.wav: its name without the suffix, 'x1', does not match"),
        (r"(?P<duration>.*)", "duration is the recording's own"),
    ],
)
def test_pattern_that_cannot_be_used_says_why(tmp_path, pattern, message):
    sound(tmp_path / "dog/x1.wav")
    with pytest.raises(ConfigError, match=message):
        class_folder.prepare(tmp_path, pattern=pattern)


def test_recording_outside_a_class_folder_is_named(tmp_path):
    sound(tmp_path / "dog/1.wav")
    sound(tmp_path / "stray.wav")
    with pytest.raises(ConfigError, match=r"stray\.wav: not in a class folder"):
        class_folder.prepare(tmp_path)


def test_class_folder_without_a_readable_clip_is_refused(tmp_path):
    sound(tmp_path / "dog/1.wav")
    (tmp_path / "cat").mkdir()
    with pytest.raises(ConfigError, match="class folder 'cat' has no readable recording"):
        class_folder.prepare(tmp_path)


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    ("prepare", "message"),
    [
        (esc50.prepare, r"no meta/esc50\.csv"),
        (urbansound8k.prepare, r"no metadata/UrbanSound8K\.csv"),
        (speech_commands.prepare, r"no validation_list\.txt and no testing_list\.txt"),
        (fluent_speech_commands.prepare, r"no data/train_data\.csv"),
        (fsdd.prepare, "no recording below it"),
        (class_folder.prepare, "no recording below it"),
    ],
)
def test_folder_that_is_not_the_corpus_says_what_was_expected(tmp_path, prepare, message):
    with pytest.raises(ConfigError, match=message):
        prepare(tmp_path)


def test_progress_counts_every_recording_once(tmp_path):
    seen = []
    speech_commands.prepare(commands(tmp_path), tmp_path / "out", progress=lambda *step: seen.append(step))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
