"""The doctor: every finding has a name, a state and a fix, and the exit code follows from the states."""

import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from speech_peft.cli import doctor
from speech_peft.cli.doctor import Check

GUARD = "import sys; from speech_peft.cli.doctor import torchaudio; check = torchaudio();"


def fake_torchaudio(folder: Path, raises: str) -> Path:
    """A torchaudio whose import raises, to be put first on the path."""
    (folder / "torchaudio").mkdir(parents=True)
    (folder / "torchaudio" / "__init__.py").write_text(f"raise {raises}('libc10_cuda.so: no such file')\n")
    return folder


@pytest.fixture
def two_checks(monkeypatch: pytest.MonkeyPatch) -> list[Check]:
    found = [Check("one", "ok", "1.0"), Check("two", "note", "absent", "install two")]
    monkeypatch.setattr(doctor, "checks", lambda offline: iter(found))
    return found


def test_this_environment_is_healthy_and_transformers_stays_out():
    code = (
        "import sys; from speech_peft.cli.doctor import main; code = main(['--offline', '--json']);"
        "sys.exit(10 if 'transformers' in sys.modules else code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    states = {check["name"]: check["state"] for check in report["checks"]}
    assert report["ok"]
    assert {f"decode {suffix}" for suffix in doctor.FORMATS} <= states.keys()
    assert states["torch"] == states["device"] == "ok"


@pytest.mark.parametrize("raises", ["ImportError", "OSError", "RuntimeError"])
def test_a_broken_torchaudio_is_reported_and_hidden_without_transformers(tmp_path: Path, raises: str):
    path = fake_torchaudio(tmp_path, raises)
    code = f"sys.path.insert(0, {str(path)!r}); {GUARD} print(check.state, check.found, check.fix);"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {code} assert 'transformers' not in sys.modules"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("note does not import; hidden from transformers")
    assert "pip uninstall torchaudio" in done.stdout


@pytest.mark.parametrize("suffix", doctor.FORMATS)
def test_a_tone_made_in_memory_is_heard_in_every_format(suffix: str, tmp_path: Path):
    path = tmp_path / f"tone.{suffix}"
    path.write_bytes(doctor.encode(suffix))
    assert doctor.heard(path).startswith("0.1")


def test_a_decoder_that_returns_silence_is_found_out(monkeypatch: pytest.MonkeyPatch):
    import numpy as np

    from speech_peft.audio import io

    silence = io.Clip(np.zeros(1600, np.float32), 16000, 16000, 1)
    monkeypatch.setattr(io, "load", lambda path: silence)
    assert {check.state for check in doctor.decoders()} == {"failed"}


def test_exit_code_is_0_with_notes_only(two_checks: list[Check], capsys: pytest.CaptureFixture[str]):
    assert doctor.main([]) == 0
    assert "everything needed works" in capsys.readouterr().out


def test_exit_code_is_1_and_the_fix_is_shown_when_something_fails(
    two_checks: list[Check], capsys: pytest.CaptureFixture[str]
):
    two_checks.append(Check("three", "failed", "broken", "pip install three"))
    assert doctor.main([]) == 1
    output = capsys.readouterr().out
    assert "-> pip install three" in output
    assert "unusable: three" in output


def test_a_missing_dependency_fails_and_says_what_to_install():
    check = doctor.dependency("surely-not-installed", ">=1")
    assert check.state == "failed"
    assert "pip install" in check.fix
    assert "surely-not-installed>=1" in check.fix


def test_the_malware_releases_of_lightning_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(metadata, "version", lambda name: "2.6.3")
    assert doctor.dependency("lightning", ">=2.5,!=2.6.2,!=2.6.3,<3").state == "failed"


def test_an_import_that_raises_oserror_is_a_finding_not_a_crash(monkeypatch: pytest.MonkeyPatch):
    def broken(module: str) -> None:
        raise OSError("libsndfile.so: cannot open")

    monkeypatch.setattr("importlib.import_module", broken)
    check = doctor.dependency("soundfile", ">=0.13")
    assert check.state == "failed"
    assert "libsndfile.so" in check.found


def test_the_hub_is_not_asked_offline(monkeypatch: pytest.MonkeyPatch):
    def never(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("urllib.request.urlopen", never)
    assert "offline" in doctor.hub(offline=True).found
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "offline" in doctor.hub().found


def test_an_unreachable_hub_is_a_note(monkeypatch: pytest.MonkeyPatch):
    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("urllib.request.urlopen", unreachable)
    check = doctor.hub()
    assert (check.state, bool(check.fix)) == ("note", True)


def test_libraries_that_every_command_compiles_anew_are_a_note(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path))  # where nothing was compiled yet
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    assert doctor.bytecode().state == "ok"
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    assert doctor.bytecode().state == "note"
    assert "compileall" in doctor.bytecode().fix
