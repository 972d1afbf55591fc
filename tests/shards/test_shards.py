"""Shards are made once, whole or not at all, whatever happened before."""

import gc
import json
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from speech_peft.audio import store
from speech_peft.errors import ConfigError
from speech_peft.folders.outcomes.outcome import Outcome
from speech_peft.folders.runner import Policy
from speech_peft.shards import __main__ as command
from speech_peft.shards import look, marks
from speech_peft.shards.blocks import Cut

from .made import SUFFIXES, go, manifest, upper


def members(out: Path) -> dict[str, str]:
    """Every text of every shard, in order."""
    found = {}
    for shard in sorted(out.glob("*.tar")):
        with tarfile.open(shard) as file:
            for member in file:
                assert member.name not in found
                found[member.name] = file.extractfile(member).read().decode()  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("shards", [1, 3, 10, 17])
@pytest.mark.parametrize("rows", [1, 10])
def test_every_row_is_in_one_shard_in_order(tmp_path, rows, shards):
    path, out = manifest(tmp_path, rows), tmp_path / "out"
    code, summary = go(path, out, shards=shards)
    assert (code, summary["ok"], summary["shards_done"]) == (0, rows, shards)
    assert list(members(out).values()) == [f"ROW-{row:04}" for row in range(rows)]
    assert not list(look.problems(out))


@pytest.mark.parametrize("shards", range(1, 40))
def test_a_manifest_is_cut_at_its_bytes_without_losing_a_line(tmp_path, shards):
    path = manifest(tmp_path, 7)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n").rstrip())
    found = [job.relpath for block in Cut([str(path), str(path)], SUFFIXES, shards) for job in block.jobs()]
    assert found == [f"row-{row:04}" for row in range(7)] * 2


def test_folders_and_tables_are_cut_by_their_rows(tmp_path):
    path = manifest(tmp_path / "in", 10)
    (tmp_path / "in/rows.csv").write_text("id,audio\n" + "".join(f"row-{n},a.wav\n" for n in range(10)))
    blocks = list(Cut([str(tmp_path / "in/rows.csv")], SUFFIXES, 4))
    assert [len(list(block.jobs())) for block in blocks] == [2, 3, 2, 3]
    assert [block.place for block in blocks] == [0, 1, 2, 3]
    assert len(list(Cut([str(path.parent)], SUFFIXES, 2))) == 2


def test_a_second_run_opens_no_model_and_writes_nothing(tmp_path):
    path, out = manifest(tmp_path), tmp_path / "out"
    go(path, out)
    before = {file: file.stat().st_mtime_ns for file in out.glob("*.tar")}
    code, summary = go(path, out, work=lambda jobs: pytest.fail("nothing was to do"))
    assert (code, summary["skipped"], summary["ok"]) == (0, 10, 0)
    assert {file: file.stat().st_mtime_ns for file in out.glob("*.tar")} == before


def test_a_run_that_is_killed_in_a_shard_leaves_no_half_one_and_the_next_does_the_rest(tmp_path):
    path, out = manifest(tmp_path), tmp_path / "out"
    done = []

    def killed(jobs):
        for outcome in upper(jobs):
            if len(done) == 5:
                raise KeyboardInterrupt
            done.append(outcome.job.relpath)
            yield outcome

    assert go(path, out, work=killed)[0] == 130
    assert look.status(out).done == 1
    assert not [one for one in look.problems(out) if "not done" not in one]
    again = []
    code, _ = go(path, out, work=lambda jobs: (again.append(o.job.relpath) or o for o in upper(jobs)))
    assert code == 0
    assert not set(again) & set(done[:3])
    assert len(members(out)) == 10


def test_a_shard_without_a_mark_is_made_again_and_was_never_counted(tmp_path):
    path, out = manifest(tmp_path), tmp_path / "out"
    go(path, out)
    whole = members(out)
    (name,) = [one for one in marks.names(store.at(out)) if one.startswith("00001")]
    (out / f".speech_peft/shards/{name}.json").unlink()
    (out / f"{name}.tar").write_bytes(b"half")
    assert look.status(out).done == 2
    assert any("has no mark" in problem for problem in look.problems(out))
    assert go(path, out)[1]["ok"] == 3
    assert members(out) == whole


def test_rows_that_changed_take_the_place_of_what_was_made_of_them(tmp_path):
    path, out = manifest(tmp_path), tmp_path / "out"
    go(path, out)
    path.write_text(path.read_text().replace("row-0009", "new-0009"))
    _, summary = go(path, out)
    assert (summary["ok"], summary["skipped"]) == (3, 7)
    assert len(list(out.glob("*.tar"))) == 3
    assert list(members(out))[-1] == "new-0009.txt"


@pytest.mark.parametrize("other", [{"settings": "t"}, {"shards": 4}, {"format": "files"}])
def test_a_folder_holds_shards_of_one_kind_unless_they_are_overwritten(tmp_path, other):
    path, out = manifest(tmp_path), tmp_path / "out"
    go(path, out)
    with pytest.raises(ConfigError, match="overwrite"):
        go(path, out, **other)
    assert go(path, out, Policy(overwrite=True), **other)[1]["ok"] == 10
    assert not list(look.problems(out))


def test_rows_that_fail_are_rows_of_the_errors_file_and_are_tried_again_when_asked(tmp_path):
    path, out = manifest(tmp_path, bad=[2, 7]), tmp_path / "out"
    code, summary = go(path, out)
    assert (code, summary["ok"], summary["failed"]) == (3, 8, 2)
    rows = [json.loads(line) for line in (out / ".speech_peft/errors.jsonl").read_text().splitlines()]
    assert [(row["id"], row["stage"], row["error"]) for row in rows] == [
        ("bad-0002", "decode", "is noise"),
        ("bad-0007", "decode", "is noise"),
    ]
    assert go(path, out)[1]["skipped"] == 10

    def mended(jobs):
        return (Outcome(job, {"txt": job.relpath.upper()}) for job in jobs)

    code, summary = go(path, out, Policy(retry_failed=True), work=mended)
    assert (code, summary["ok"], summary["skipped"]) == (0, 7, 3)
    assert not (out / ".speech_peft/errors.jsonl").read_text()


def test_two_rows_of_one_name_are_one_row_and_a_failure(tmp_path):
    path = manifest(tmp_path, 1)
    path.write_text(path.read_text() + '{"id": "row-0000", "audio": "a.wav", "duration": 0.005}\n')
    code, summary = go(path, tmp_path / "out", shards=1)
    assert (code, summary["ok"], summary["failed"]) == (3, 1, 1)


def test_a_shard_that_another_process_has_is_left_to_it(tmp_path):
    from speech_peft.shards import leases

    path, out = manifest(tmp_path), tmp_path / "out"

    def first(jobs):
        if not hasattr(first, "other"):
            first.other = go(path, out)[1]
        return upper(jobs)

    _, mine = go(path, out, work=first)
    assert first.other["shards_elsewhere"] == 1
    assert first.other["ok"] + mine["ok"] == 10
    assert leases.under_way(store.at(out)) == 0
    assert len(members(out)) == 10


def test_rows_may_have_files_of_their_own(tmp_path):
    path, out = manifest(tmp_path), tmp_path / "out"
    go(path, out, format="files")
    assert (out / "row-0003.txt").read_text() == "ROW-0003"
    assert not list(look.problems(out))
    (out / "row-0003.txt").write_text("else")
    assert [problem for problem in look.problems(out) if "row-0003" in problem]


def test_verify_finds_a_byte_that_changed(tmp_path, capsys):
    path, out = manifest(tmp_path), tmp_path / "out"
    go(path, out)
    assert command.main(["verify", str(out)]) == 0
    shard = next(out.glob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    assert command.main(["verify", str(out)]) == 1
    assert shard.name in capsys.readouterr().out


def test_merge_gives_one_file_in_order_and_refuses_what_is_not_done(tmp_path, capsys):
    path, out = manifest(tmp_path), tmp_path / "out"
    go(path, out)
    assert command.main(["merge", str(out), "--to", str(tmp_path / "all.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "all.jsonl").read_text().splitlines()]
    assert rows[4] == {"id": "row-0004", "text": "ROW-0004"}
    assert command.main(["merge", str(out), "--to", str(tmp_path / "all.tar")]) == 0
    with tarfile.open(tmp_path / "all.tar") as file:
        assert len(file.getnames()) == 10
    name = next(iter(marks.names(store.at(out))))
    (out / f".speech_peft/shards/{name}.json").unlink()
    assert command.main(["merge", str(out), "--to", str(tmp_path / "b.jsonl")]) == 2
    assert "1 of 3 shards" in capsys.readouterr().err
    assert command.main(["merge", str(out), "--to", str(tmp_path / "b.jsonl"), "--partial"]) == 0


def test_status_says_how_far_a_folder_is(tmp_path, capsys):
    path, out = manifest(tmp_path, bad=[1]), tmp_path / "out"
    assert command.main(["status", str(out)]) == 2
    go(path, out)
    assert command.main(["status", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["done"], found["shards"], found["rows"], found["failed"]) == (3, 3, 10, 1)
    assert command.main(["status", str(out)]) == 0
    assert "3 of 3 shards" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset closes no tar
def test_datasets_and_webdataset_read_what_is_written(tmp_path):
    datasets, webdataset = pytest.importorskip("datasets"), pytest.importorskip("webdataset")
    pytest.importorskip("pyarrow")
    path, sound = manifest(tmp_path, 6), (tmp_path / "a.wav").read_bytes()

    def sounds(jobs):
        return (replace(one, files={"txt": one.job.relpath, "wav": sound}) for one in upper(jobs))

    for format in ("tar", "parquet"):
        go(path, tmp_path / format, shards=2, work=sounds, format=format, extensions=("txt", "wav"))
    named = [str(one) for one in sorted((tmp_path / "parquet").glob("*.parquet"))]
    table = datasets.load_dataset("parquet", data_files=named, split="train", cache_dir=str(tmp_path / "c"))
    assert isinstance(table.features["audio"], datasets.Audio)
    raw = table.cast_column("audio", datasets.Audio(decode=False))
    assert [row["text"] for row in raw] == [f"row-{n:04}" for n in range(6)]
    assert all(row["audio"]["bytes"] == sound for row in raw)
    tars = [str(one) for one in sorted((tmp_path / "tar").glob("*.tar"))]
    samples = list(webdataset.WebDataset(tars, shardshuffle=False))
    assert [one["txt"].decode() for one in samples] == [row["text"] for row in raw]
    assert all(one["wav"] == sound for one in samples)
    gc.collect()
