"""A run does what is missing, once, whatever happened before."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from speech_peft.errors import ConfigError
from speech_peft.files import owner
from speech_peft.folders import runner
from speech_peft.folders.claims import Claims
from speech_peft.folders.ledger import FOLDER, Ledger
from speech_peft.folders.outcomes.outcome import Outcome
from speech_peft.folders.progress import Lines, Quiet
from speech_peft.folders.runner import Policy

SUFFIXES = frozenset({".wav"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.wav", "sub/b.wav", "sub/c.wav"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 100)
    return tmp_path


def upper(jobs) -> Iterator[Outcome]:
    for job in jobs:
        yield Outcome(job, {"txt": job.relpath.upper()}, audio_seconds=1.0)


def go(
    tmp_path: Path, work=upper, policy: Policy | None = None, settings=None, inputs=None
) -> tuple[int, dict]:
    out = tmp_path / "out"
    plan = runner.plan(inputs or [tmp_path / "in"], out, ["txt"], settings or {}, SUFFIXES, policy)
    code = runner.run(plan, work, Quiet(), policy)
    return code, json.loads((out / FOLDER / "summary.json").read_text())


def errors(tmp_path: Path) -> list[dict]:
    return [
        json.loads(line) for line in (tmp_path / "out" / FOLDER / "errors.jsonl").read_text().splitlines()
    ]


def test_outputs_mirror_the_inputs_and_a_second_run_skips_all(folder):
    assert go(folder)[0] == 0
    assert (folder / "out/sub/b.txt").read_text() == "SUB/B"
    code, summary = go(folder, work=lambda jobs: pytest.fail("nothing was to do"))
    assert (code, summary["skipped"], summary["ok"]) == (0, 3, 0)


@pytest.mark.parametrize("change", ["input", "settings", "missing", "cut", "overwrite"])
def test_what_changed_is_done_again(folder, change):
    go(folder)
    if change == "input":
        (folder / "in/a.wav").write_bytes(b"y" * 101)
    elif change == "missing":
        (folder / "out/a.txt").unlink()
    elif change == "cut":
        (folder / "out/a.txt").write_text("")
    policy, settings = Policy(overwrite=change == "overwrite"), {"beam": 5} if change == "settings" else {}
    _, summary = go(folder, policy=policy, settings=settings)
    assert summary["ok"] == (3 if change in ("settings", "overwrite") else 1)


def test_a_recording_is_done_again_when_another_microphone_s_file_changed(folder):
    manifest = folder / "rows.jsonl"
    manifest.write_text(json.dumps({"audio": ["in/a.wav", "in/sub/b.wav"]}) + "\n")
    assert go(folder, inputs=[manifest])[1]["ok"] == 1
    assert go(folder, inputs=[manifest])[1]["skipped"] == 1
    (folder / "in/sub/b.wav").write_bytes(b"y" * 99)
    assert go(folder, inputs=[manifest])[1]["ok"] == 1


def test_one_bad_file_is_a_row_and_the_code_is_3(folder):
    def work(jobs):
        for job in jobs:
            yield (
                Outcome(job, error="is noise", stage="decode")
                if job.relpath == "sub/b"
                else next(upper([job]))
            )

    code, summary = go(folder, work)
    assert (code, summary["ok"], summary["failed"]) == (3, 2, 1)
    (row,) = errors(folder)
    assert row["path"].endswith("b.wav")
    assert (row["stage"], row["error"]) == ("decode", "is noise")
    done = []
    code, _ = go(
        folder, lambda jobs: (done.append(o.job.relpath) or o for o in upper(jobs)), Policy(retry_failed=True)
    )
    assert (code, done) == (0, ["sub/b"])


def test_all_failed_is_1_and_fail_fast_stops_at_the_first(folder):
    def work(jobs):
        for job in jobs:
            yield Outcome(job, error="no", stage="decode")

    assert go(folder, work)[0] == 1
    _, summary = go(folder, work, Policy(fail_fast=True))
    assert (summary["failed"], summary["not_done"]) == (1, 2)


def test_the_second_input_with_an_output_fails_and_names_the_first(folder):
    other = folder / "other"
    other.mkdir()
    (other / "a.wav").write_bytes(b"z")
    for done in ("ok", "skipped"):
        code, summary = go(folder, inputs=[folder / "in", other])
        assert (code, summary[done], summary["failed"]) == (3, 3, 1)
        (row,) = errors(folder)
        assert "other/a.wav" in row["path"]
        assert "in/a.wav" in row["error"]
        assert "{suffix}" in row["error"]
    assert (folder / "out/a.txt").read_text() == "A"


def test_an_output_never_replaces_an_input(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"x")
    plan = runner.plan([tmp_path / "a.wav"], tmp_path, ["wav"], {}, SUFFIXES)
    assert [step.action for step in plan.steps] == ["refuse"]


def test_a_symlink_loop_ends_and_broken_links_and_pipes_are_rows(folder):
    os.symlink(folder / "in", folder / "in/sub/loop")
    os.symlink(folder / "in/self.wav", folder / "in/self.wav")
    os.symlink(folder / "nowhere", folder / "in/broken.wav")
    os.mkfifo(folder / "in/pipe.wav")
    code, summary = go(folder)
    assert (code, summary["ok"], summary["failed"]) == (3, 3, 3)
    reasons = {Path(row["path"]).name: row["error"] for row in errors(folder)}
    assert "no such file" in reasons["broken.wav"]
    assert "symbolic links" in reasons["self.wav"]
    assert "regular file" in reasons["pipe.wav"]


def test_interruption_is_130_and_what_was_done_counts(folder):
    def work(jobs):
        yield next(upper(jobs))
        raise KeyboardInterrupt

    code, summary = go(folder, work)
    assert (code, summary["ok"], summary["not_done"]) == (130, 1, 2)
    assert go(folder)[1]["skipped"] == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_between_an_output_and_its_record_waits_for_the_record(folder, monkeypatch, number):
    monkeypatch.setattr(Quiet, "file", lambda *row: signal.raise_signal(number))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code, summary = go(folder)
    finally:
        signal.signal(signal.SIGINT, before)
    monkeypatch.undo()
    assert (code, summary["ok"], summary["not_done"]) == (130, 1, 2)
    assert go(folder)[1]["skipped"] == 1


def test_an_output_that_cannot_be_written_is_a_row(folder):
    (folder / "out").mkdir()
    (folder / "out/sub").write_text("a file where a folder must be")
    code, summary = go(folder)
    assert (code, summary["ok"], summary["failed"]) == (3, 1, 2)


def test_a_torn_last_line_of_the_ledger_is_forgotten_and_not_joined(folder):
    go(folder)
    path = folder / "out" / FOLDER / "ledger.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    _, summary = go(folder)
    assert (summary["ok"], summary["skipped"]) == (1, 2)
    assert len(Ledger(folder / "out").entries) == 3


def test_a_template_with_an_unknown_field_or_a_way_out_is_refused(folder):
    for template in ("{name}.{ext}", "../{relpath}.{ext}", "/{relpath}"):
        with pytest.raises(ConfigError, match="name-template"):
            runner.plan(
                [folder / "in"], folder / "out", ["txt"], {}, SUFFIXES, Policy(name_template=template)
            )


def test_an_input_that_is_not_there_is_a_usage_error(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        runner.plan([tmp_path / "gone"], tmp_path, ["txt"], {}, SUFFIXES)


SLOW = """
import sys, time
from pathlib import Path
from speech_peft.folders import runner
from speech_peft.folders.progress import Quiet
def work(jobs):
    for job in jobs:
        time.sleep(0.004)
        yield runner.Outcome(job, {"txt": job.relpath * 2000}, audio_seconds=1.0)
top = Path(sys.argv[1])
plan = runner.plan([top / "in"], top / "out", ["txt"], {}, frozenset({".wav"}))
print("go", flush=True)
raise SystemExit(runner.run(plan, work, Quiet()))
"""


def kill_at(folder: Path, seconds: float) -> None:
    process = subprocess.Popen([sys.executable, "-c", SLOW, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()


@pytest.mark.parametrize("kills", [4, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_any_moment_no_file_is_partial_and_the_next_run_does_the_rest(tmp_path, kills):
    (tmp_path / "in").mkdir()
    for number in range(60):
        (tmp_path / f"in/{number}.wav").write_bytes(b"x")
    for attempt in range(kills):
        kill_at(tmp_path, 0.005 + 0.2 * attempt / kills)
        for path in (tmp_path / "out").glob("*.txt"):
            assert path.read_text() == path.stem * 2000
        if attempt % 5 == 4:
            for path in (tmp_path / "out").glob("*.txt"):
                path.unlink()
    there = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.txt")}
    known = len(Ledger(tmp_path / "out").entries)
    code, summary = go(tmp_path, lambda jobs: (Outcome(j, {"txt": j.relpath * 2000}) for j in jobs))
    assert code == 0
    assert summary["skipped"] + summary["ok"] == 60
    assert len(there) - 1 <= summary["skipped"] <= known
    assert not list((tmp_path / "out").glob(".*tmp*"))


def lines(tmp_path: Path) -> list[dict]:
    path = tmp_path / "out" / FOLDER / "ledger.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


def plan_of(tmp_path: Path, kinds=("txt",), command="transcribe", settings=None, policy=None):
    return runner.plan(
        [tmp_path / "in"], tmp_path / "out", list(kinds), settings or {}, SUFFIXES, policy, command
    )


def carry(tmp_path: Path, kinds=("txt",), command="transcribe", settings=None, policy=None, say=None) -> int:
    """A run of some command that writes its own name into files of these kinds."""

    def work(jobs):
        for job in jobs:
            yield Outcome(job, {kind: say or f"{command} {kind}" for kind in kinds}, audio_seconds=1.0)

    plan = plan_of(tmp_path, kinds, command, settings, policy)
    return runner.run(plan, work, Quiet(), policy)


def test_commands_in_one_folder_leave_each_other_alone(folder):
    made = {"transcribe": ("txt",), "classify": ("csv",), "restore": ("wav", "report")}
    for command, kinds in made.items():
        assert carry(folder, kinds, command) == 0
    for command, kinds in made.items():
        assert {step.action for step in plan_of(folder, kinds, command).steps} == {"skip"}
    assert carry(folder, ("csv",), "transcribe") == 1
    assert "was made by classify" in errors(folder)[0]["error"]
    assert (folder / "out/a.csv").read_text() == "classify csv"


def test_another_format_is_added_and_the_first_one_stays(folder):
    assert carry(folder) == 0
    before = (folder / "out/a.txt").stat().st_mtime_ns
    assert carry(folder, ("txt", "srt")) == 0
    assert (folder / "out/a.srt").read_text() == "transcribe srt"
    assert (folder / "out/a.txt").stat().st_mtime_ns == before
    assert {step.action for step in plan_of(folder, ("srt", "txt")).steps} == {"skip"}


@pytest.mark.parametrize("whose", ["mine", "edited", "edited to one length", "a link"])
def test_a_file_that_is_not_ours_is_a_row_and_stays(folder, whose):
    other = folder / "elsewhere.txt"
    if whose == "mine":
        (folder / "out").mkdir()
        (folder / "out/a.txt").write_text("my own")
    else:
        assert carry(folder) == 0
    if whose == "edited":
        (folder / "out/a.txt").write_text("corrected by hand")
    elif whose == "edited to one length":
        (folder / "out/a.txt").write_text("x" * len("transcribe txt"))
    elif whose == "a link":
        other.write_text("transcribe txt")
        (folder / "out/a.txt").unlink()
        (folder / "out/a.txt").symlink_to(other)
    before = (folder / "out/a.txt").read_text()
    assert carry(folder, settings={"beam": 5}, say="new") == 3
    (row,) = errors(folder)
    assert row["path"].endswith("a.wav")
    assert "a.txt" in row["error"]
    assert "--overwrite" in row["error"]
    assert (folder / "out/a.txt").read_text() == before
    assert carry(folder, settings={"beam": 5}, say="new", policy=Policy(overwrite=True)) == 0
    assert (folder / "out/a.txt").read_text() == "new"


def test_recordings_of_one_name_from_two_folders_do_not_replace_each_other(folder):
    assert carry(folder) == 0
    other = folder / "other"
    other.mkdir()
    (other / "a.wav").write_bytes(b"another")
    plan = runner.plan([other], folder / "out", ["txt"], {}, SUFFIXES, None, "transcribe")
    (step,) = plan.steps
    assert step.action == "refuse"
    assert "in/a.wav" in step.why


def test_an_input_that_changes_while_it_is_read_is_a_row_and_leaves_nothing(folder):
    def work(jobs):
        for job in jobs:
            if job.relpath == "a":
                job.audio.write_bytes(b"a newer take")
            yield next(upper([job]))

    code, summary = go(folder, work)
    assert (code, summary["failed"]) == (3, 1)
    assert "changed while it was read" in errors(folder)[0]["error"]
    assert not (folder / "out/a.txt").exists()
    assert go(folder)[1]["ok"] == 1


@pytest.mark.parametrize("id", [".speech_peft/ledger", ".Speech_PEFT/claims/x", "sub/.speech_peft/errors"])
def test_a_row_never_names_the_ledgers_own_files(folder, id):
    manifest = folder / "rows.jsonl"
    rows = [{"id": name, "audio_filepath": str(folder / "in/a.wav"), "duration": 1} for name in (id, "good")]
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    plan = runner.plan([manifest], folder / "out", ["jsonl"], {}, SUFFIXES)
    assert [step.action for step in plan.steps] == ["refuse", "run"]


HOSTILE = [
    b"[" * 100_000,
    b'{"id": "a.wav", "audio": "x", "status": "ok", "fingerprint": "", "settings": "", "outputs": null}',
    b'{"id": ["a"], "audio": "x", "status": "ok", "fingerprint": "", "settings": "", "outputs": {}}',
    b'{"id": "b", "audio": "x", "status": "ok", "fingerprint": "", "settings": "", "outputs": {"a.txt": []}}',
    b"\xff\x00\x00",
    b"null",
    b"1e999",
    b"",
]


def test_corrupted_lines_of_the_ledger_are_passed_over(folder):
    assert carry(folder) == 0
    path = folder / "out" / FOLDER / "ledger.jsonl"
    path.write_bytes(b"\n".join([*HOSTILE, path.read_bytes(), *HOSTILE]))
    assert {step.action for step in plan_of(folder).steps} == {"skip"}
    assert carry(folder, ("srt",)) == 0


def test_a_ledger_of_before_knows_its_outputs_by_size(folder):
    carry(folder)
    path = folder / "out" / FOLDER / "ledger.jsonl"
    old = [{k: v for k, v in row.items() if k not in ("command", "digests")} for row in lines(folder)]
    path.write_text("".join(json.dumps(row) + "\n" for row in old if row["status"] != "writing"))
    assert {step.action for step in plan_of(folder).steps} == {"skip"}
    assert carry(folder, settings={"beam": 5}, say="new") == 0


def no_room(*_args, **_more):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["output", "ledger", "claim", "folder"])
def test_a_full_disk_ends_the_run_with_one_line_and_the_summary(folder, monkeypatch, capsys, where):
    done = []

    def work(jobs):
        for job in jobs:
            if done:
                if where == "output":
                    monkeypatch.setattr("speech_peft.folders.outcomes.placing.write_bytes", no_room)
                elif where == "ledger":
                    monkeypatch.setattr("speech_peft.folders.ledger.os.write", no_room)
            done.append(job)
            yield next(upper([job]))

    if where == "claim":
        monkeypatch.setattr("speech_peft.folders.claims.os.link", no_room)
    if where == "folder":
        monkeypatch.setattr("os.mkdir", no_room)
    plan = runner.plan([folder / "in"], folder / "out", ["txt"], {}, SUFFIXES)
    code = runner.run(plan, work, Lines(), None)
    monkeypatch.undo()
    said = capsys.readouterr().err.splitlines()
    (error,) = [line for line in said if line.startswith("error: ")]
    assert "No space left" in error
    assert said[-1].startswith(f"{code == 3:d} done")
    assert code == (3 if where in ("output", "ledger") else 1)
    assert len(done) == {"output": 2, "ledger": 2}.get(where, 0)
    assert go(folder)[0] == 0


def test_a_file_where_the_output_folder_should_be_is_a_usage_error(folder):
    (folder / "out").write_text("a file")
    with pytest.raises(ConfigError, match="is a file"):
        plan_of(folder)


def test_processes_on_one_folder_do_each_input_once(tmp_path):
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / f"in/{number}.wav").write_bytes(b"x")
    command = [sys.executable, "-c", SLOW, str(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    done = [row["id"] for row in lines(tmp_path) if row["status"] == "ok"]
    assert sorted(done) == sorted(f"{number}.wav" for number in range(40))
    assert not list((tmp_path / "out" / FOLDER / "claims").iterdir())


def test_what_another_process_is_at_is_left_to_it_and_no_model_is_opened(folder):
    theirs = Claims(folder / "out" / FOLDER / "claims")
    with theirs.kept():
        for name in ("a.wav", "sub/b.wav", "sub/c.wav"):
            assert theirs.take(name)
        code, summary = go(folder, lambda jobs: pytest.fail("nothing was to do"))
    assert (code, summary["elsewhere"], summary["not_done"]) == (0, 3, 0)
    assert go(folder)[1]["ok"] == 3


def test_a_claim_is_taken_over_when_its_process_is_gone_and_only_then(tmp_path, monkeypatch):
    mine, theirs, at = Claims(tmp_path), Claims(tmp_path), tmp_path / "claim"
    monkeypatch.setattr(Claims, "_path", lambda self, id: at)
    with mine.kept(), theirs.kept():
        assert mine.take("a")
        assert not theirs.take("a")
        mine.release("a")
        for mark, hours, left in (
            (f"{owner.host()}-999999999-abc 0", 0, True),
            (f"{owner.mark()} 0", 24, False),  # it lives, whatever the clock says
            ("00000000-1-abc 0", 0, False),  # of another host, and touched just now
            ("00000000-1-abc 0", 1, True),
            ("", 0, False),
            ("", 1, True),
        ):
            at.write_text(mark)
            os.utime(at, (time.time() - 3600 * hours,) * 2)
            assert mine.take("a") == left, (mark, hours)
            at.unlink()
    assert not list(tmp_path.iterdir())


def test_claims_need_no_hard_links(tmp_path, monkeypatch):
    def none(*_args):
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", none)
    with Claims(tmp_path).kept() as mine, Claims(tmp_path).kept() as theirs:
        assert mine.take("a")
        assert not theirs.take("a")
        mine.release("a")
        assert theirs.take("a")


def test_what_another_process_has_done_meanwhile_is_not_done_again(folder):
    late = plan_of(folder)
    assert carry(folder) == 0
    assert runner.run(late, lambda jobs: pytest.fail("nothing was to do"), Quiet(), None) == 0


def test_speed_counts_from_when_the_model_is_open(folder):
    def work(jobs):
        time.sleep(0.2)
        yield from upper(jobs)

    _, summary = go(folder, work)
    assert summary["opening_seconds"] >= 0.2
    assert summary["rtfx"] > 3.0 / 0.2
