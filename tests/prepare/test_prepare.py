"""The prepare command: what it prints, and how it fails."""

import subprocess
import sys

import numpy as np

from speech_peft.audio import io
from speech_peft.prepare import __main__ as prepare


def test_librispeech_from_the_command_line(tmp_path, capsys):
    chapter = tmp_path / "dev" / "1" / "2"
    chapter.mkdir(parents=True)
    io.save(chapter / "1-2-0.flac", np.zeros(16_000, np.float32), 16_000)
    (chapter / "1-2.trans.txt").write_text("1-2-0 HELLO\n")
    assert prepare.main(["librispeech", str(tmp_path), str(tmp_path / "out")]) == 0
    assert "dev: 1 recordings" in capsys.readouterr().out


def test_wrong_source_is_exit_code_2(tmp_path, capsys):
    assert (
        prepare.main(["asterisk-prompts", str(tmp_path / "out"), "--source", str(tmp_path / "no.deb")]) == 2
    )
    assert "no.deb: no such file" in capsys.readouterr().err
    assert prepare.main(["common-voice", str(tmp_path)]) == 2
    assert prepare.main(["libri"]) == 2


def test_damaged_recording_is_exit_code_1(tmp_path, capsys):
    chapter = tmp_path / "dev" / "1" / "2"
    chapter.mkdir(parents=True)
    (chapter / "1-2-0.flac").write_bytes(b"")
    (chapter / "1-2.trans.txt").write_text("1-2-0 HELLO\n")
    assert prepare.main(["librispeech", str(tmp_path)]) == 1
    assert "is empty" in capsys.readouterr().err


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from speech_peft.prepare.__main__ import main; main(['--help']);"
        "assert not {'torch', 'numpy', 'av'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_class_folder_with_a_pattern_from_the_command_line(tmp_path, capsys):
    for name in ("dog/1-a", "cat/2-b"):
        (tmp_path / "in" / name).parent.mkdir(parents=True)
        io.save(tmp_path / "in" / f"{name}.wav", np.zeros(1600, np.float32), 16_000)
    folders = [str(tmp_path / "in"), str(tmp_path / "out")]
    assert prepare.main(["class-folder", *folders, "--pattern", r"(?P<fold>\d)-.*"]) == 0
    assert "all: 2 recordings" in capsys.readouterr().out
    assert prepare.main(["class-folder", *folders, "--pattern", "(?P<fold>"]) == 2
    assert "not a regular expression" in capsys.readouterr().err


def test_every_corpus_has_a_command(capsys):
    from speech_peft.registry import CORPORA

    assert prepare.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert [name for name in CORPORA if name not in shown] == []
