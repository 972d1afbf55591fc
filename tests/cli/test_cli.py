"""The `speech-peft` command: fast, with honest exit codes."""

import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from speech_peft import __version__
from speech_peft.cli import main as cli
from speech_peft.cli import recipes as recipes_cli
from speech_peft.errors import ConfigError, SpeechPeftError
from speech_peft.terminal import exits

HEAVY = ("torch", "transformers", "lightning", "torchaudio", "sklearn", "torchmetrics", "pyloudnorm", "PIL")


def run_cold(*argv: str, columns: int = 80) -> tuple[int, str, float]:
    """The command in a fresh interpreter: exit code, output and what it imported, seconds."""
    code = (
        "import sys; from speech_peft.cli.main import main; code = main(sys.argv[1:]);"
        f"print('IMPORTED', [name for name in {HEAVY} if name in sys.modules]); sys.exit(code)"
    )
    started = time.perf_counter()
    environment = {**os.environ, "COLUMNS": str(columns)}
    done = subprocess.run(
        [sys.executable, "-c", code, *argv], capture_output=True, text=True, env=environment, check=False
    )
    return done.returncode, done.stdout + done.stderr, time.perf_counter() - started


@pytest.mark.parametrize("argv", [["--help"], ["--version"], [], ["trian"]])
def test_help_version_and_wrong_words_import_nothing_heavy(argv: list[str]):
    code, output, seconds = run_cold(*argv)
    assert "IMPORTED []" in output
    assert code == (2 if argv == ["trian"] else 0)
    assert seconds < 3  # alone it takes 0.1 s; other tests share the machine


COMMANDS = [*cli.COMMANDS, "bench asr", "bench check", "prepare fsdd", "adapter merge", "recipes copy"]
WIDTHS = ("80", "120")


def explained(commands: Sequence[str]) -> None:
    """Print, as JSON, the help of each at both widths, its seconds, and what heavy was imported till then."""
    found = {}
    for command in commands:
        started = time.process_time()
        for columns, option in zip(WIDTHS, ("-h", "--help"), strict=True):
            os.environ["COLUMNS"] = columns
            with redirect_stdout(io.StringIO()) as output:
                assert cli.main([*command.split(), option]) == 0
            found[f"{command} {columns}"] = output.getvalue()
        found[command] = time.process_time() - started, [name for name in HEAVY if name in sys.modules]
    print(json.dumps(found))


@pytest.fixture(scope="module")
def help_of() -> dict[str, Any]:
    """Of one fresh interpreter for all, as a heavy import is to be missed."""
    code = "import sys; from tests.cli.test_cli import explained; explained(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *COMMANDS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_has_one_style_and_imports_nothing_heavy(help_of: dict[str, Any], command: str):
    narrow, wide = (help_of[f"{command} {columns}"] for columns in WIDTHS)
    for shown, columns in zip((narrow, wide), WIDTHS, strict=True):
        assert shown.startswith(f"Usage: speech-peft {command} [OPTIONS]")
        assert "-h, --help" in shown
        assert max(map(len, shown.splitlines())) <= int(columns)
        assert not re.search(r"[\u2500-\u257f]|list\[|<\w+\|", shown)  # boxes, and types of Python
    assert len(wide.splitlines()) <= len(narrow.splitlines())
    seconds, heavy = help_of[command]
    assert seconds < 1
    assert not heavy


def test_options_of_several_commands_have_one_default_and_one_meaning(help_of: dict[str, Any]):
    """What several have word for word: the line of an option that all of them share."""
    shared = (
        "--device",
        "--threads",
        "--offline",
        "--progress",
        "--quiet",
        "--context",
        "--track",
        "--dtype",
    )
    for option in shared:
        found = set()
        for command in COMMANDS:
            if (command, option) == ("export", "--dtype"):  # of the numbers in a file, not of the computing
                continue
            if option in (text := help_of[f"{command} 120"]):
                lines = re.search(rf"^ +{option}\b.*?(?=^ +-|\Z)", text, re.M | re.S)
                found.add(" ".join(lines[0].split()) if lines else None)
        assert len(found) == 1, option


def test_a_wrong_option_is_code_2_and_imports_nothing_heavy():
    code, output, _ = run_cold("doctor", "--jsno")
    assert code == 2
    assert "--jsno" in output
    assert "IMPORTED []" in output


def test_a_wrong_command_names_the_nearest(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["trasncribe"]) == 2
    assert "'transcribe'" in capsys.readouterr().err


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"speech_peft {__version__}\n"


@pytest.mark.parametrize(
    ("raised", "code"),
    [(ConfigError("x"), 2), (SpeechPeftError("x"), 1), (KeyboardInterrupt(), 130), (SystemExit(3), 3)],
)
def test_what_a_command_raises_becomes_its_exit_code(raised: BaseException, code: int):
    def command(argv: list[str] | None) -> int:
        raise raised

    assert exits.guarded(command, []) == code


def test_recipes_are_listed_shown_and_copied_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert recipes_cli.main(["list"]) == 0
    name = capsys.readouterr().out.split()[0]
    assert recipes_cli.main(["show", name]) == 0
    text = capsys.readouterr().out
    copy = tmp_path / "mine" / "recipe.yaml"
    assert recipes_cli.main(["copy", name, str(copy)]) == 0
    assert copy.read_text() == text
    assert recipes_cli.main(["copy", name, str(copy)]) == 2


def test_help_names_the_command_as_it_was_called():
    done = subprocess.run(
        [sys.executable, "-m", "speech_peft", "recipes", "--help"], capture_output=True, text=True
    )
    assert "Usage: speech-peft recipes" in done.stdout


def test_a_recipe_is_copied_under_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert recipes_cli.main(["copy", "asr/whisper_parallel"]) == 0
    assert (tmp_path / "whisper_parallel.yaml").is_file()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("speech-peft tra", "transcribe"),
        ("speech-peft transcribe --vad s", "silero"),
        ("speech-peft bench a", "asr"),
    ],
)
def test_a_shell_is_told_what_may_come_next(typed: str, offered: str):
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-m", "speech_peft"],
        capture_output=True,
        text=True,
        env={**os.environ, "_SPEECH_PEFT_COMPLETE": "complete_bash", **words},
        check=False,
    )
    assert offered in done.stdout.split(), done.stderr


def test_the_script_for_a_shell_is_shown(capsys: pytest.CaptureFixture[str]):
    assert cli.main(["--show-completion", "zsh"]) == 0
    assert "compdef" in capsys.readouterr().out
    assert cli.main(["--show-completion", "dos"]) == 2
    assert "bash, zsh, fish" in capsys.readouterr().err
