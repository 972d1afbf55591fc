"""The commands as real processes: on a terminal of 80 columns, and stopped by signals."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech_peft.train.state import LAST, load_state
from tests import tiny

TRANSCRIBE = """
import sys
from speech_peft.backbones.families import tiny
from speech_peft.core.model import AdaptedModel
from speech_peft.transcribe import transcriber
from speech_peft.opening.loading import Opened

def load(adapter, weights, device, offline, **options):
    backbone = tiny("whisper", context="fit")
    return Opened(backbone, AdaptedModel(backbone.module, backbone.sites(), {}))

transcriber.load = load
from speech_peft.transcribe.__main__ import main
raise SystemExit(main(sys.argv[1:]))
"""


class Terminal:
    """A process on a pseudo-terminal of its own: what it shows, and a keyboard."""

    def __init__(self, *command: str, columns: int = 80):
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
            | {"TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so that Ctrl-C is a signal
        )
        os.close(slave)
        self.bytes = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while True:
            try:
                part = os.read(self.master, 4096)
            except OSError:  # the other side is closed
                return
            if not part:
                return
            self.bytes += part

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def wait(self, seconds: float = 120) -> int:
        code = self.process.wait(seconds)
        self._reader.join(5)
        os.close(self.master)
        return code

    @property
    def lines(self) -> list[str]:
        """Every line that was ever on the screen, without colours."""
        text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.bytes.decode(errors="replace"))
        return [line for line in re.split(r"[\r\n]+", text) if line.strip()]


def until(condition, process: subprocess.Popen, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, "the process ended too early"
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def steps(run: Path) -> int:
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


# What Lightning, litlogger and torch say to a user who did not ask.
NOISE = re.compile(r"lightning|litlogger|LitLogger|GPU available|TPU|Trainer\(|warn|Warning|tip|💡|⚡", re.I)


def test_training_shows_a_bar_on_a_terminal_and_nothing_that_is_not_ours(tmp_path):
    path = tiny.recipe(tmp_path)
    (tmp_path / "valid").mkdir()
    valid = tiny.corpus(tmp_path / "valid")
    screen = Terminal(
        sys.executable,
        tiny.__file__,
        str(path),
        "trainer.max_steps=25",
        f"data.valid={valid}",
    )
    assert screen.wait() == 0, screen.lines
    bars = [line for line in screen.lines if line.startswith("━")]
    assert all(len(line) <= 80 for line in bars)
    assert any(
        re.search(r"\d+%.*step \d+  loss .*x real time  padding \d+%  \d+:\d\d left", line) for line in bars
    )
    assert any("valid_wer" in line for line in screen.lines)
    assert screen.lines[-1].startswith("adapter: ")
    assert not [line for line in screen.lines if NOISE.search(line.replace(str(tmp_path), ""))]


@pytest.mark.slow
def test_ctrl_c_on_a_terminal_saves_and_the_same_command_goes_on(tmp_path):
    path = tiny.recipe(tmp_path)
    command = [sys.executable, tiny.__file__, str(path), "data.workers=2", "trainer.save_every_seconds=null"]
    screen = Terminal(*command, "trainer.max_steps=100000")
    until(lambda: steps(tmp_path / "run") >= 3, screen.process)
    screen.type(b"\x03")  # the terminal sends SIGINT to every process of the group, loaders included
    assert screen.wait() == 130, screen.lines
    assert any("the same command goes on from there" in line for line in screen.lines)
    assert not [line for line in screen.lines if "Traceback" in line or "Error" in line]
    done = load_state(tmp_path / "run" / LAST)["global_step"]
    assert done >= 3
    again = Terminal(*command, f"trainer.max_steps={done + 2}")
    assert again.wait() == 0, again.lines


def recordings(folder: Path, count: int) -> None:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        soundfile.write(folder / f"{i}.wav", 0.1 * rng.standard_normal(16000 * 4), 16000)


def arguments(folder: Path) -> list[str]:
    fixed = ["--vad", "none", "--batch-seconds", "4"]
    return [sys.executable, "-c", TRANSCRIBE, str(folder / "in"), "-o", str(folder / "out"), *fixed]


def texts(folder: Path) -> list[Path]:
    return sorted((folder / "out").glob("*.txt"))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_folder_run_with_130_and_the_next_run_does_the_rest(tmp_path, number):
    recordings(tmp_path / "in", 40)
    process = subprocess.Popen(
        arguments(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell starts its background jobs with SIGINT ignored, and a suite may be one.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    until(lambda: len(texts(tmp_path)) >= 2, process)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 130, output
    assert "Traceback" not in output
    assert "not done" in output
    first = {path: path.stat().st_mtime_ns for path in texts(tmp_path)}
    assert 2 <= len(first) < 40
    assert json.loads((tmp_path / "out/.speech_peft/summary.json").read_text())["exit_code"] == 130
    again = subprocess.run(arguments(tmp_path), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert len(texts(tmp_path)) == 40
    assert {path: path.stat().st_mtime_ns for path in first} == first


@pytest.mark.slow
def test_transcribing_shows_a_bar_on_a_terminal(tmp_path):
    recordings(tmp_path / "in", 12)
    screen = Terminal(*arguments(tmp_path))
    assert screen.wait() == 0, screen.lines
    bars = [line for line in screen.lines if line.startswith("━")]
    assert any(re.search(r"\d+/12 files  .* audio  .*x real time  ETA .*0 failed", line) for line in bars)
    assert screen.lines[-1].startswith("12 done")
    assert not [line for line in screen.lines if NOISE.search(line)]
