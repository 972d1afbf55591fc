"""Sound that lies in tars, in Parquet or in a store is the sound that was put there."""

import gzip
import io as memory
import json
import tarfile
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from speech_peft.audio import io, manifest, store
from speech_peft.audio.containers import held
from speech_peft.audio.rows import packed
from speech_peft.errors import AudioError, ConfigError
from speech_peft.folders.inputs import gather
from speech_peft.shards import leases, look
from tests.shards.made import SUFFIXES, go, upper

TONE = (0.3 * np.sin(np.arange(48_000) / 20)).astype(np.float32)


@pytest.fixture
def far():
    """A store of objects, in memory."""
    files = import_module("fsspec").filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def wav(folder: Path, samples=TONE, suffix: str = ".wav") -> bytes:
    io.save(folder / f"sound{suffix}", samples, 16_000)
    return (folder / f"sound{suffix}").read_bytes()


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            one = tarfile.TarInfo(name)
            one.size = len(content)
            file.addfile(one, memory.BytesIO(content))
    return path


def test_a_path_that_pathlib_has_shortened_is_the_same_address():
    for name in ("s3://bucket/a/b.wav", "hf://datasets/x/y/z.tar"):
        assert store.is_remote(Path(name))
        assert store.address(Path(name)) == name
    assert not store.is_remote("/s3/bucket")
    assert not store.is_remote("c:/sounds/a.wav")


def test_a_tar_lists_its_keys_with_text_and_labels_and_one_member_is_read(tmp_path):
    sound = wav(tmp_path)
    path = tar(
        tmp_path / "a.tar",
        {
            "x/one.wav": sound,
            "x/one.txt": b"hello\n",
            "x/one.json": b'{"speaker": "theo"}',
            "two.flac": wav(tmp_path, TONE[:8000], ".flac"),
            "two.cls": b"rain",
            "readme.txt": b"no sound",
        },
    )
    one, two = manifest.read(path)
    assert (one.id, one.text, one.speaker, two.id, two.label) == ("x/one", "hello", "theo", "two", "rain")
    np.testing.assert_array_equal(io.load(one.audio).samples, io.load(tmp_path / "sound.wav").samples)
    assert io.info(two.audio).seconds == 0.5
    manifest.write(tmp_path / "index.jsonl", [one, two])  # an index, by which one member is read
    again = manifest.read(tmp_path / "index.jsonl")
    np.testing.assert_array_equal(
        io.load(again[0].audio, start=1.0, duration=0.5).samples[:8000],
        io.load(one.audio, start=1.0, duration=0.5).samples,
    )


def test_a_tar_that_ends_early_is_an_error_of_its_rows(tmp_path):
    path = tar(tmp_path / "a.tar", {"one.wav": wav(tmp_path)})
    (row,) = packed.rows(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(AudioError, match="ends before"):
        io.load(row.audio)  # type: ignore[union-attr]
    path.write_bytes(b"nothing of the kind" * 100)
    with pytest.raises(ConfigError, match="as a tar"):
        list(packed.rows(path))


def test_shards_that_were_written_are_read_again_with_their_text(tmp_path):
    (tmp_path / "in").mkdir()
    wav(tmp_path / "in")
    rows = [{"id": f"v1.{n} 100%", "audio": "sound.wav"} for n in range(4)]
    (tmp_path / "in/rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    content = (tmp_path / "in/sound.wav").read_bytes()

    def sounds(jobs):
        from dataclasses import replace

        return (replace(one, files={"txt": "hello", "wav": content}) for one in upper(jobs))

    go(tmp_path / "in/rows.jsonl", tmp_path / "out", shards=2, work=sounds)
    found = [row for shard in sorted((tmp_path / "out").glob("*.tar")) for row in manifest.read(shard)]
    assert [row.id for row in found] == [row["id"] for row in rows]
    assert {row.text for row in found} == {"hello"}
    for row in found:
        np.testing.assert_array_equal(io.load(row.audio).samples, io.load(tmp_path / "in/sound.wav").samples)


def test_lhotse_shar_gives_cuts_their_sound(tmp_path):
    tar(tmp_path / "recording.000000.tar", {"c1.wav": wav(tmp_path), "c1.json": b"{}"})
    cut = {"id": "c1", "duration": 3.0, "supervisions": [{"text": "hi", "speaker": "s", "language": "en"}]}
    with gzip.open(tmp_path / "cuts.000000.jsonl.gz", "wt") as file:
        file.write(json.dumps(cut) + "\n")
    (row,) = manifest.read(tmp_path / "cuts.000000.jsonl.gz")
    assert (row.id, row.text, row.speaker, row.lang) == ("c1", "hi", "s", "en")
    assert len(io.load(row.audio).samples) == 48_000


def test_a_slice_of_a_far_recording_reads_that_part_alone(tmp_path, far, monkeypatch):
    long = np.tile(TONE, 40)
    far.pipe_file("/b/long.wav", wav(tmp_path, long))
    read = []
    ask = store.Objects.read
    monkeypatch.setattr(
        store.Objects, "read", lambda self, *args: (read.append(len(found := ask(self, *args))), found)[1]
    )
    there = io.load(Path("memory://b/long.wav"), start=90.0, duration=2.0).samples
    assert sum(read) < 0.1 * long.nbytes / 2
    np.testing.assert_array_equal(there, io.load(tmp_path / "sound.wav", start=90.0, duration=2.0).samples)


def test_what_is_not_in_a_store_is_an_error_of_its_row(far):
    with pytest.raises(AudioError, match="no such file or object"):
        io.load(Path("memory://b/none.wav"))
    with pytest.raises(ConfigError, match="no such file"):
        gather(["memory://b/none.jsonl"], SUFFIXES)


def test_rows_and_shards_may_both_lie_in_a_store(tmp_path, far):
    far.pipe_file("/b/in/sound.wav", wav(tmp_path))
    rows = "".join(json.dumps({"id": f"row-{n}", "audio": "sound.wav"}) + "\n" for n in range(6))
    far.pipe_file("/b/in/rows.jsonl", rows.encode())
    heard = []

    def listens(jobs):
        jobs = list(jobs)
        heard.extend(len(io.load(job.audio).samples) for job in jobs)
        return upper(jobs)

    code, summary = go("memory://b/in/rows.jsonl", "memory://b/out", work=listens)
    assert (code, summary["ok"], set(heard)) == (0, 6, {48_000})
    assert not list(look.problems("memory://b/out"))
    assert look.merge("memory://b/out", tmp_path / "all.jsonl") == 6
    assert go("memory://b/in/rows.jsonl", "memory://b/out")[1]["skipped"] == 6
    assert leases.under_way(store.at("memory://b/out")) == 0
    far.pipe_file("/b/in/a.tar", tar(tmp_path / "a.tar", {"k.wav": wav(tmp_path)}).read_bytes())
    assert [job.relpath for job in gather(["memory://b/in/*.tar"], SUFFIXES)] == ["k"]


def test_requests_that_fail_for_a_moment_are_made_again_and_counted(tmp_path, far, monkeypatch):
    monkeypatch.setattr("speech_peft.audio.stores.objects._PAUSE_SECONDS", 0.0)
    place = store.at("memory://b")
    failures = iter([True, True, False])
    write = type(far).pipe_file

    def pipe(self, *args, **more):
        if next(failures, False):
            raise OSError("503 slow down")
        return write(self, *args, **more)

    monkeypatch.setattr(type(far), "pipe_file", pipe)
    place.write("x", b"1")
    assert (place.read("x"), place.retries) == (b"1", 2)
    monkeypatch.setattr(type(far), "pipe_file", lambda *_, **__: (_ for _ in ()).throw(OSError("503")))
    with pytest.raises(OSError, match="failed 8 times"):
        place.write("y", b"1")


def test_of_two_who_make_a_lease_one_has_it_until_it_is_given_back(far):
    place = store.at("memory://b")
    one, two = leases.Leases(place), leases.Leases(place)
    assert one.take("s")
    assert not two.take("s")
    one.release("s")
    assert two.take("s")
    place.write(f"{leases.LEASES}/t", b"0badc0de-1-1 aa 5")  # of another host, long ago
    assert one.take("t")
    other = iter([FileNotFoundError()])
    place.read = lambda name: (_ for _ in ()).throw(next(other))  # type: ignore[method-assign]
    assert not place.create(f"{leases.LEASES}/s", b"mine")  # given back between two requests
    del place.read
    one.close()
    two.close()
    assert not place.found(leases.LEASES)


def test_parquet_with_sound_is_read_a_row_at_a_time(tmp_path):
    pytest.importorskip("pyarrow")
    from dataclasses import replace

    (tmp_path / "in").mkdir()
    content = wav(tmp_path / "in")
    (tmp_path / "in/rows.csv").write_text("id,audio\n" + "".join(f"r{n},sound.wav\n" for n in range(130)))

    def sounds(jobs):
        return (replace(one, files={"txt": "hello", "wav": content[: 44 + 200]}) for one in upper(jobs))

    go(
        tmp_path / "in/rows.csv",
        tmp_path / "out",
        shards=1,
        work=sounds,
        format="parquet",
        extensions=("txt", "wav"),
    )
    (shard,) = (tmp_path / "out").glob("*.parquet")
    rows = list(packed.rows(shard))
    assert [(row.id, row.text) for row in rows] == [(f"r{n}", "hello") for n in range(130)]  # type: ignore[union-attr]
    with held.taken(rows[100].audio) as file:  # type: ignore[union-attr]
        assert Path(file.name).read_bytes() == content[: 44 + 200]
    assert not list(look.problems(tmp_path / "out"))


@pytest.mark.parametrize("kind", ["new_file", "new_stream"])
def test_arrow_with_sound_is_read_a_row_at_a_time_with_an_index_or_without(tmp_path, kind):
    arrow = pytest.importorskip("pyarrow")
    sounds = [bytes([number]) * 9 for number in range(5)]
    rows = [{"text": f"t{n}", "audio": {"bytes": one, "path": f"{n}.wav"}} for n, one in enumerate(sounds)]
    schema = arrow.Table.from_pylist(rows).schema
    (tmp_path / "saved").mkdir()
    with getattr(arrow.ipc, kind)(str(tmp_path / "saved/a.arrow"), schema) as file:
        for some in (rows[:2], rows[2:]):
            file.write_batch(arrow.RecordBatch.from_pylist(some, schema))
    found = manifest.read(tmp_path / "saved")
    assert [(row.text, row.audio.name) for row in found] == [(f"t{n}", f"{n}.wav") for n in range(5)]
    for row, content in zip(found, sounds, strict=True):
        with held.taken(row.audio) as file:
            assert Path(file.name).read_bytes() == content
    (tmp_path / "none.arrow").write_bytes(b"no table")
    with pytest.raises(ConfigError, match="cannot be read as Arrow"):
        manifest.read(tmp_path / "none.arrow")
