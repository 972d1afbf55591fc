"""A run of any number of inputs begins with the first of them, and knows what it did at the end."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from speech_peft.folders import agenda, inputs, runner
from speech_peft.folders.ledger import FOLDER
from speech_peft.folders.names import Names
from speech_peft.folders.outcomes.outcome import Outcome
from speech_peft.folders.progress import Quiet
from speech_peft.folders.runner import Policy

SUFFIXES = frozenset({".wav"})


def rows(tmp_path: Path, count: int) -> Path:
    (tmp_path / "a.wav").write_bytes(b"x" * 100)
    lines = ({"id": f"{n:03}", "audio": "a.wav"} for n in range(count))
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path / "m.jsonl"


def work(jobs):
    for job in jobs:
        yield Outcome(job, {"txt": job.relpath, "wav": b"restored"}, audio_seconds=1.0)


def go(given, out: Path, policy=None, kinds=("txt",), work=work, report=None) -> tuple[int, dict]:
    plan = runner.plan(given, out, kinds, {}, SUFFIXES, policy)
    code = runner.run(plan, work, report or Quiet(), policy)
    return code, json.loads((out / FOLDER / "summary.json").read_text())


@pytest.fixture
def planned(monkeypatch) -> list[str]:
    """What was looked at so far."""
    seen, before = [], inputs._file

    def file(path: Path, relpath: str):
        seen.append(relpath)
        return before(path, relpath)

    monkeypatch.setattr(inputs, "_file", file)
    return seen


@pytest.mark.parametrize("what", ["manifest", "folder"])
def test_the_first_is_done_when_few_were_planned(tmp_path, monkeypatch, planned, what):
    monkeypatch.setattr(agenda, "AHEAD", 5)
    source = rows(tmp_path, 60)
    if what == "folder":
        source = tmp_path / "in"
        source.mkdir()
        for n in range(60):
            (source / f"{n:03}.wav").write_bytes(b"x")
    at = []

    def one(jobs):
        for outcome in work(jobs):
            at.append(len(planned))
            yield outcome

    assert go([source], tmp_path / "out", work=one)[1]["ok"] == 60
    assert at[0] <= 10
    assert at == sorted(at)


def test_a_dry_run_says_its_first_line_when_few_were_planned(tmp_path, planned):
    plan = runner.plan([rows(tmp_path, 60)], tmp_path / "out", ["txt"], {}, SUFFIXES)
    assert next(iter(plan.steps)).job.relpath == "000"
    assert len(planned) <= 5


@pytest.mark.parametrize("ahead", [1, 4, 1000])
def test_a_run_ends_the_same_however_far_it_looked_ahead(tmp_path, monkeypatch, ahead):
    monkeypatch.setattr(agenda, "AHEAD", ahead)
    source, out = rows(tmp_path, 12), tmp_path / "out"
    assert go([source], out, work=lambda jobs: work([next(iter(jobs))]))[1]["not_done"] == 11
    lines = source.read_text().splitlines()
    lines[6], lines[8] = "no JSON", json.dumps({"id": "gone", "audio": "gone.wav"})
    source.write_text("\n".join([*lines, lines[0]]) + "\n")
    code, summary = go([source, source], out)
    wanted = {"ok": 9, "skipped": 1, "failed": 3, "not_done": 0, "elsewhere": 0}
    assert (code, {name: summary[name] for name in wanted}) == (3, wanted)
    assert len((out / FOLDER / "errors.jsonl").read_text().splitlines()) == 3
    code, summary = go([source], out, Policy(retry_failed=True))
    assert (code, summary["failed"], summary["not_done"]) == (1, 3, 0)


def test_the_first_refusal_ends_a_run_that_is_to_fail_fast(tmp_path, monkeypatch):
    monkeypatch.setattr(agenda, "AHEAD", 2)
    source = rows(tmp_path, 6)
    lines = source.read_text().splitlines()
    source.write_text("\n".join([*lines[:3], "no JSON", *lines[3:]]) + "\n")
    _, summary = go([source], tmp_path / "out", Policy(fail_fast=True))
    assert (summary["ok"], summary["failed"], summary["not_done"]) == (3, 1, 3)


def test_totals_become_exact_as_it_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(agenda, "AHEAD", 4)
    source, out = rows(tmp_path, 20), tmp_path / "out"
    go([source], out, work=lambda jobs: work([job for job, _ in zip(jobs, range(2), strict=False)]))
    report = Quiet()
    go([source], out, report=report)
    assert (report.files, report.bytes) == (18, 1800)


def test_what_a_run_makes_is_no_input_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(agenda, "AHEAD", 1)
    (tmp_path / "in").mkdir()
    for name in "ab":
        (tmp_path / f"in/{name}.wav").write_bytes(b"x")
    _, summary = go([tmp_path / "in"], tmp_path / "in/restored", kinds=("wav",))
    assert (summary["ok"], summary["not_done"]) == (2, 0)


def test_no_input_is_replaced_though_it_comes_later_and_all_may_be_overwritten(tmp_path):
    for name in ("a", "a2"):
        (tmp_path / f"{name}.wav").write_bytes(b"x")
    policy = Policy(overwrite=True, name_template="{stem}2.{ext}")
    code, summary = go([tmp_path / "a.wav", tmp_path / "a2.wav"], tmp_path, policy, ("wav",))
    assert (code, summary["ok"], summary["failed"]) == (3, 1, 1)
    assert (tmp_path / "a2.wav").read_bytes() == b"x"


@given(st.lists(st.integers(0, 4000).map(str), max_size=3000))
def test_names_are_the_set_of_what_was_added(added):
    names, plain = Names(), set()
    for name in added:
        assert (name in names) == (name in plain)
        names.add(name, f"of {name}")
        plain.add(name)
    assert len(names) == len(plain)
    assert all(names.owner(name) == f"of {name}" for name in plain)
