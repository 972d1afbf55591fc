"""Nothing that others wrote drives a screen, and nobody need listen to standard error."""

import ast
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import speech_peft
from speech_peft.bench import __main__ as bench
from speech_peft.cli import adapters as adapters_cli
from speech_peft.errors import ConfigError
from speech_peft.folders.options import device_of, new_folder
from speech_peft.folders.progress import watched
from speech_peft.terminal import exits
from speech_peft.terminal.door import enduring, line, printable, say

ROOT = Path(speech_peft.__file__).parent
EVIL = "a\x1b]0;owned\x07\x1b[2J\r\n\x9bm\u202egpj.wav\x00\udcff"


def test_what_would_drive_a_terminal_is_shown_as_escapes():
    shown = printable(EVIL)
    assert shown.isprintable()
    assert "\\x1b[2J\\r\\n\\x9bm\\u202egpj.wav\\x00\\udcff" in shown


def test_text_of_all_scripts_stays():
    for text in ("Grüße, 東京　駅", "می‌خواهم", "क्‍ष", "1 000", "👩‍💻"):
        assert printable(text) == text


def test_only_whole_texts_have_lines(capsys):
    say("one\ntwo\x1b[0m")
    line("one\ntwo")
    assert capsys.readouterr().out == "one\ntwo\\x1b[0m\none\\ntwo\n"


def test_nothing_is_printed_but_through_the_door():
    found = []
    for path in set(ROOT.rglob("*.py")) - {ROOT / "terminal/door.py"}:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        bare = [call for call in calls if isinstance(call, ast.Name) and call.id == "print"]
        found += [f"{path.relative_to(ROOT)}:{call.lineno}" for call in bare]
    assert not found


def test_a_benchmark_shows_what_it_has_heard(capsys):
    results = [
        SimpleNamespace(path="a.wav", duration=30.0, error=None),
        SimpleNamespace(path="b\x1b[2J.wav", duration=0.0, error="is no audio"),
    ]
    assert list(watched(results, 2)) == results
    said = capsys.readouterr().err
    assert "failed: b\\x1b[2J.wav: is no audio" in said
    assert "x real time" in said
    assert "1 done, 1 failed; 0:30 audio" in said


@pytest.mark.parametrize("language", ["fr", "klingon"])
def test_a_language_that_the_model_has_not_is_told_before_anything_is_heard(monkeypatch, language):
    from speech_peft.backbones.families import tiny
    from speech_peft.core.model import AdaptedModel
    from speech_peft.opening.loading import Opened
    from speech_peft.transcribe import transcriber

    backbone = tiny("whisper", context="fit")
    opened = Opened(backbone, AdaptedModel(backbone.module, backbone.sites(), {}))
    monkeypatch.setattr(transcriber, "load", lambda *_args, **_more: opened)
    assert transcriber.Transcriber(language="en").options.language == "en"
    with pytest.raises(ConfigError, match=language):
        transcriber.Transcriber(language=language)


def test_an_error_that_names_a_file_is_harmless(capsys):
    def command(argv):
        raise ConfigError(f"{EVIL}: is wrong")

    assert exits.guarded(command, []) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("main", [adapters_cli.main, bench.main])
def test_commands_show_names_of_files_harmlessly(main, capsys, tmp_path):
    word = "show" if main is adapters_cli.main else "score"
    more = [] if word == "show" else ["-o", str(tmp_path / "out")]
    assert main([word, str(tmp_path / "x\x1b[2Jy"), *more]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("broken", ["closed", "full", "absent"])
def test_a_run_goes_on_when_nobody_hears_standard_error(monkeypatch, broken, tmp_path):
    stream = None
    if broken != "absent":
        stream = open("/dev/full", "w") if broken == "full" else io.StringIO()  # noqa: SIM115
    if broken == "closed":
        assert stream is not None
        stream.close()
    monkeypatch.setattr(sys, "stderr", stream)
    with enduring():
        print("x" * 100_000, file=sys.stderr, flush=True)
        say("more", sys.stderr)
        assert not sys.stderr.isatty()
    if stream is not None:
        stream.close()  # what could not be written went nowhere


FIRST = """
import sys, time
from speech_peft.terminal.exits import guarded
def command(argv):
    sys.stderr.write("x" * 10000)
    print("ready", flush=True)
    time.sleep(60)
raise SystemExit(guarded(command, []))
"""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
def test_sigterm_before_a_command_has_begun_is_130_though_standard_error_is_full():
    with open("/dev/full", "w") as full:
        process = subprocess.Popen(
            [sys.executable, "-c", FIRST], stdout=subprocess.PIPE, stderr=full, text=True
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
        process.stdout.close()


def test_a_full_standard_output_is_an_error_of_one_line(monkeypatch, capsys):
    with open(os.devnull, "w") as nowhere:
        monkeypatch.setattr(sys, "stdout", nowhere)

        def command(argv):
            raise OSError(28, "No space left on device")

        assert exits.guarded(command, []) == 1
    assert capsys.readouterr().err == "error: output: No space left on device\n"


def test_a_file_is_no_folder_for_results(tmp_path):
    (tmp_path / "a").touch()
    for path in (tmp_path / "a", tmp_path / "a" / "b" / "c"):
        with pytest.raises(ConfigError, match="is a file"):
            new_folder(path)
    assert new_folder(tmp_path / "new" / "er") == tmp_path / "new" / "er"


@pytest.mark.parametrize("name", ["cuda", "gpu", "cuda:7", "mps", "tpu", "cuda:x"])
def test_a_device_that_is_not_there_is_told_before_anything_is_opened(monkeypatch, name):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: False)
    with pytest.raises(ConfigError, match=f"--device: '{name}'"):
        device_of(name)


def test_gpu_is_another_word_for_cuda(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert [device_of(name) for name in ("gpu", "cuda:1", "cpu")] == ["cuda", "cuda:1", "cpu"]
