"""A final name never holds a partial file, and nothing that is not ours is touched."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest

from speech_peft.files import atomic, owner
from speech_peft.files.atomic import atomic_path, finish, sweep, temporary_beside, write_text


def half_written(final):
    with atomic_path(final) as path:
        path.write_text("half")
        1 / 0  # noqa: B018


def test_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ZeroDivisionError):
        half_written(tmp_path / "a.txt")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("name", ["n" * 255, "語" * 85])
def test_longest_possible_name_can_be_written(tmp_path, name):
    write_text(tmp_path / name, "x")
    assert [file.name for file in tmp_path.iterdir()] == [name]


WRITER = """
import sys
from speech_peft.files.atomic import atomic_path
print("ready", flush=True)
while True:
    with atomic_path(sys.argv[1]) as path, open(path, "wb") as file:
        for _ in range(64):
            file.write(b"x" * 4096)
            file.flush()
"""


def test_killed_writer_leaves_no_partial_file(tmp_path):
    final = tmp_path / "a.bin"
    for kill in range(5):
        command = [sys.executable, "-c", WRITER, str(final)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            writer.stdout.readline()
            time.sleep(0.003 + 0.011 * kill)
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        assert not final.exists() or final.stat().st_size == 64 * 4096
    sweep(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] in ([], ["a.bin"])


def left(folder, mark: str):
    """A temporary of the process behind a mark."""
    path = folder / f".a.txt.speech_peft-{mark}-{'0' * 16}.tmp"
    path.touch()
    return path


def test_sweep_removes_what_is_ours_and_certainly_left(tmp_path):
    (tmp_path / "sub").mkdir()
    begun_before = f"{owner.host()}-{os.getpid()}-abc"  # this number was given to another process since
    old = [left(tmp_path, f"{owner.host()}-999999999-abc"), left(tmp_path / "sub", begun_before)]
    assert sorted(sweep(tmp_path)) == sorted(old)
    assert list(tmp_path.iterdir()) == [tmp_path / "sub"]


def test_sweep_spares_the_living_other_hosts_and_files_of_users(tmp_path):
    spared = [
        temporary_beside(tmp_path / "a"),
        left(tmp_path, f"{owner.host()}-{os.getpid()}-0"),  # where a start cannot be told, a number is enough
        left(tmp_path, "00000000-999999999-abc"),
        tmp_path / ".draft.tmp-99999999",
        tmp_path / ".a.speech_peft.tmp",
    ]
    for path in spared:
        path.touch()
    (tmp_path / "elsewhere").symlink_to(tmp_path.parent)
    assert sweep(tmp_path) == []
    assert all(path.exists() for path in spared)


def test_a_temporary_name_is_never_one_that_is_there(tmp_path, monkeypatch):
    (tmp_path / "mine").write_text("keep")
    monkeypatch.setattr(atomic, "_name", lambda name, kind="": ".trap")
    (tmp_path / ".trap").symlink_to(tmp_path / "mine")
    with pytest.raises(FileExistsError):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "mine").read_text() == "keep"


def test_a_file_moves_into_a_folder_on_another_file_system(tmp_path, monkeypatch):
    temporary = temporary_beside(tmp_path / "one" / "a.txt")
    temporary.write_text("whole")
    replace = os.replace

    def across(source, target):
        if source.parent != target.parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, target)

    monkeypatch.setattr(os, "replace", across)
    finish(temporary, tmp_path / "two" / "a.txt")
    assert (tmp_path / "two/a.txt").read_text() == "whole"
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [tmp_path / "two/a.txt"]
