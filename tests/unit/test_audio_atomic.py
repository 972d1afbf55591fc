"""A final name never holds a partial file."""

import os
import signal
import subprocess
import sys
import time

import pytest

from speech_peft.audio.atomic import atomic_path, sweep, write_text


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


def test_longest_possible_name_can_be_written(tmp_path):
    write_text(tmp_path / ("n" * 255), "x")
    assert [len(file.name) for file in tmp_path.iterdir()] == [255]


WRITER = """
import sys
from speech_peft.audio.atomic import atomic_path
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


def test_sweep_spares_files_of_a_live_process(tmp_path):
    (tmp_path / f".a.tmp-{os.getpid()}-0").touch()
    assert sweep(tmp_path) == []
