"""A run does what is missing, once, whatever happened before."""

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
from speech_peft.infer import runner
from speech_peft.infer.ledger import FOLDER, Ledger
from speech_peft.infer.progress import Quiet
from speech_peft.infer.runner import Outcome, Policy

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


def test_two_inputs_with_one_output_are_both_refused_by_name(folder):
    other = folder / "other"
    other.mkdir()
    (other / "a.wav").write_bytes(b"z")
    code, summary = go(folder, inputs=[folder / "in", other])
    assert (code, summary["ok"], summary["failed"]) == (3, 2, 2)
    assert "other/a.wav" in errors(folder)[0]["error"]
    assert "in/a.wav" in errors(folder)[1]["error"]


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
from speech_peft.infer import runner
from speech_peft.infer.progress import Quiet
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
