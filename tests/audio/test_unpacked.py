"""Data sets whose sound comes inside them: rows like any other, their clips in files of the cache."""

import io as stdio
import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import soundfile

from speech_peft.audio import io, manifest
from speech_peft.audio.unpacked import rows_of
from speech_peft.errors import AudioError, ConfigError

RATE = 8000
TONE = (0.3 * np.sin(np.arange(RATE) / 3)).astype(np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SPEECH_PEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "clips"


def flac(samples: np.ndarray = TONE) -> bytes:
    file = stdio.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC")
    return file.getvalue()


def records() -> list[dict]:
    return [
        {"audio": {"bytes": flac(), "path": "x/a.flac"}, "sentence": "one", "label": 1, "locale": "de"},
        {"audio": {"array": 3 * TONE, "sampling_rate": RATE, "path": None}, "sentence": "two", "label": 0},
        {"audio": flac(-TONE), "sentence": "", "label": -1, "notes": ["not", "plain"]},
    ]


CLASSES = {"label": ["cat", "dog"]}


def test_records_become_rows_whose_files_hold_their_sound(cache):
    rows = rows_of(records(), "data", CLASSES)
    assert [(row.id, row.text, row.label, row.lang) for row in rows] == [
        ("000000", "one", "dog", "de"), ("000001", "two", "cat", None), ("000002", "", "", None),
    ]  # fmt: skip
    for row, expected in zip(rows, (TONE, 3 * TONE, -TONE), strict=True):
        assert row.audio.is_relative_to(cache)
        np.testing.assert_allclose(io.load(row.audio, None).samples, expected, atol=1e-4)
    assert dict(rows[2].extra) == {}


def test_the_same_sound_is_written_once(cache):
    first = rows_of(records(), "data")
    before = {file: file.stat().st_mtime_ns for file in cache.glob("*/*")}
    again = rows_of([*records(), *records()], "data")
    assert [row.audio for row in again] == [row.audio for row in first] * 2
    assert {file: file.stat().st_mtime_ns for file in cache.glob("*/*")} == before
    assert len(before) == 3


def test_a_cell_that_only_names_a_file_leaves_it_where_it_is(tmp_path, cache):
    soundfile.write(tmp_path / "a.wav", TONE, RATE)
    named = [
        {"audio": cell} for cell in (str(tmp_path / "a.wav"), {"bytes": None, "path": tmp_path / "a.wav"})
    ]
    assert [row.audio for row in rows_of(named, "data")] == [tmp_path / "a.wav"] * 2
    assert not cache.exists()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"audio": 3.5}, r"data\[0\]\.audio: audio: got 3\.5 \(float\)"),
        ({"audio": {"array": TONE}}, r"data\[0\]\.audio: .*no 'sampling_rate'"),
        ({"sentence": "one"}, r"data\[0\]: no audio path; columns found: id, sentence"),
    ],
)
def test_a_record_without_sound_is_refused_by_its_place(record, message):
    with pytest.raises(ConfigError, match=message):
        rows_of([record], "data")


def test_sound_that_cannot_be_decoded_is_one_bad_clip_not_the_end_of_the_set():
    (row,) = rows_of([{"audio": {"bytes": b"no sound", "path": "a.wav"}}], "data")
    with pytest.raises(AudioError):
        io.load(row.audio)


def test_rows_come_back_from_the_manifest_that_is_written_of_them(tmp_path):
    rows = rows_of(records(), "data", CLASSES)
    manifest.write(tmp_path / "m.jsonl", rows)
    assert [(r.id, r.audio, r.text, r.label) for r in manifest.read(tmp_path / "m.jsonl")] == [
        (r.id, r.audio, r.text, r.label) for r in rows
    ]


# ---- Parquet ----------------------------------------------------------------------------------------


FEATURES = {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}, "sentence": {"dtype": "string"}}
SCHEMA = {b"huggingface": json.dumps({"info": {"features": FEATURES}}).encode()}


@pytest.fixture
def reader(monkeypatch):
    """pyarrow, as far as it is used: every file holds the same records, in batches of two."""

    class ParquetFile:
        def __init__(self, file):
            if file.read_bytes() == b"damaged":
                raise OSError("Parquet magic bytes not found")
            self.schema_arrow = SimpleNamespace(metadata=SCHEMA)

        def iter_batches(self, batch_size):
            for part in (records()[:2], records()[2:]):
                yield SimpleNamespace(to_pylist=lambda part=part: part)

    module = ModuleType("pyarrow.parquet")
    module.ParquetFile = ParquetFile
    monkeypatch.setitem(sys.modules, "pyarrow", ModuleType("pyarrow"))
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", module)
    sys.modules["pyarrow"].parquet = module


def test_a_folder_of_shards_is_one_manifest(tmp_path, reader):
    for shard in ("train-00000-of-00002", "train-00001-of-00002"):
        (tmp_path / f"{shard}.parquet").write_bytes(b"")
    rows = manifest.read(tmp_path)
    assert [row.label for row in rows] == ["dog", "cat", ""] * 2
    assert len({row.id for row in rows}) == 6
    assert len(manifest.read(tmp_path / "train-00000-of-00002.parquet")) == 3


def test_shards_of_two_splits_are_refused(tmp_path, reader):
    for name in ("train-00000-of-00001", "test-00000-of-00001"):
        (tmp_path / f"{name}.parquet").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"holds the splits test, train; put"):
        manifest.read(tmp_path)


def test_a_damaged_file_is_named(tmp_path, reader):
    (tmp_path / "a.parquet").write_bytes(b"damaged")
    with pytest.raises(ConfigError, match=r"a\.parquet: cannot be read as Parquet \(Parquet magic"):
        manifest.read(tmp_path / "a.parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "a.parquet").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pip install 'speech_peft\[parquet\]'"):
        manifest.read(tmp_path / "a.parquet")


def test_real_parquet_is_read(tmp_path):
    arrow = pytest.importorskip("pyarrow", reason="the extra `parquet` is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = arrow.table(
        {
            "audio": [record["audio"] for record in records()[:1]] * 3,
            "sentence": ["one", "two", "three"],
            "label": [0, 1, -1],
        }
    ).replace_schema_metadata(SCHEMA)
    parquet.write_table(table, tmp_path / "a.parquet")
    rows = manifest.read(tmp_path / "a.parquet")
    assert [(row.text, row.label) for row in rows] == [("one", "cat"), ("two", "dog"), ("three", "")]
    assert len(io.load(rows[0].audio, None).samples) == RATE
