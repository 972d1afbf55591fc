"""`restore` from the outside: folders in, recordings out, whatever is in the folders."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech_peft.restore.__main__ import main
from tests import identity
from tests.identity import restorer, sound

RATE = 16_000


@pytest.fixture(autouse=True)
def _stub(monkeypatch):
    identity.install(monkeypatch)


@pytest.fixture
def adapter(tmp_path) -> Path:
    return restorer(tmp_path / "adapter")


def go(*arguments: object) -> int:
    return main([*map(str, arguments), "--quiet", "--guard", "off"])


def ledger(out: Path, name: str = "ledger.jsonl") -> list[dict]:
    return [json.loads(line) for line in (out / ".speech_peft" / name).read_text().splitlines()]


def test_a_folder_becomes_a_mirrored_folder_with_a_report_beside_each(tmp_path, adapter):
    for name, rate, channels in (("a.wav", 8_000, 1), ("deep/er/b.flac", 44_100, 2)):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / name, sound(1.0, rate, channels), rate)
    out = tmp_path / "out"
    arguments = [tmp_path / "in", "-o", out, "--adapter", adapter, "--subtype", "pcm_24"]
    assert go(*arguments) == 0
    b = soundfile.info(out / "deep/er/b.wav")
    assert (b.samplerate, b.channels, b.frames, b.subtype) == (44_100, 2, 44_100, "PCM_24")
    report = json.loads((out / "deep/er/b.json").read_text())
    assert (report["id"], report["strength"], report["length"]) == ("deep/er/b", 1.0, 44_100)
    assert abs(report["level_db"]) < 0.5
    left = [p.name for p in out.rglob("*") if p.is_file() and p.name.endswith(".tmp")]
    assert not left
    assert go(*arguments, "--sr", "24000") == 0
    assert soundfile.info(out / "a.wav").frames == 24_000


def test_each_hostile_file_is_a_row_and_the_rest_is_done(tmp_path, adapter):
    folder, good = tmp_path / "in", sound(1.0, RATE)
    folder.mkdir()
    (folder / "text.wav").write_text("this is no audio at all, whatever its name says\n" * 20)
    bad = good.copy()
    bad[500] = np.nan
    soundfile.write(folder / "nan.wav", bad, RATE, subtype="FLOAT")
    soundfile.write(folder / "header_only.wav", good[:0], RATE)
    soundfile.write(folder / "one_sample.wav", good[:1], RATE)
    soundfile.write(folder / "silence.wav", np.zeros(RATE), RATE)
    soundfile.write(folder / "cut.wav", sound(4.0, RATE), RATE)
    whole = (folder / "cut.wav").read_bytes()
    (folder / "cut.wav").write_bytes(whole[: len(whole) // 3])
    assert go(folder, "-o", tmp_path / "out", "--adapter", adapter) == 3
    found = {Path(row["audio"]).name: (row["status"], row["stage"]) for row in ledger(tmp_path / "out")}
    assert found == {
        "text.wav": ("failed", "decode"),
        "nan.wav": ("failed", "decode"),
        "header_only.wav": ("failed", "decode"),
        "one_sample.wav": ("ok", ""),
        "silence.wav": ("ok", ""),
        "cut.wav": ("truncated", ""),
    }
    assert not soundfile.read(tmp_path / "out/silence.wav")[0].any()
    assert soundfile.info(tmp_path / "out/one_sample.wav").frames == 1
    assert sorted(p.suffix for p in (tmp_path / "out").glob("*")) == ["", *[".json"] * 3, *[".wav"] * 3]


def test_a_second_run_opens_no_model_and_other_settings_count(tmp_path, adapter, monkeypatch):
    soundfile.write(tmp_path / "a.wav", sound(1.0, RATE), RATE)
    arguments = (tmp_path / "a.wav", "-o", tmp_path / "out", "--adapter", adapter)
    assert go(*arguments) == 0
    before = (tmp_path / "out/a.wav").read_bytes()
    with monkeypatch.context() as patched:
        patched.setattr(
            "speech_peft.restore.restorer.load", lambda *_, **__: pytest.fail("a model was opened")
        )
        assert go(*arguments) == 0
    restorer(adapter, noise=0.05)
    assert go(*arguments) == 0
    assert (tmp_path / "out/a.wav").read_bytes() != before


def test_an_adapter_without_a_decoder_is_told_what_it_lacks(tmp_path, adapter, capsys):
    soundfile.write(tmp_path / "a.wav", sound(1.0, RATE), RATE)
    saved = json.loads((adapter / "adapter.json").read_text())
    (adapter / "adapter.json").write_text(json.dumps({**saved, "head_config": {}}))
    assert go(tmp_path / "a.wav", "-o", tmp_path / "out", "--adapter", adapter) == 2
    assert "decoder" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["x.wav"],
        ["gone.wav", "--adapter", "a"],
        ["x.wav", "--adapter", "a", "--sr", "12345"],
        ["x.wav", "--adapter", "a", "--strength", "2"],
        ["x.wav", "--adapter", "a", "--guard", "maybe"],
        ["x.wav", "--adapter", "a", "--subtype", "MP3"],
        ["x.wav", "--adapter", "a", "--channels", "left"],
    ],
)
def test_wrong_usage_is_2(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["gone.wav", "--adapter", "a"]])
def test_help_and_wrong_arguments_are_quick_and_need_no_torch(arguments, tmp_path):
    code = (
        "import sys; from speech_peft.restore.__main__ import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules; sys.exit(code)"
    )
    before = children_seconds()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == (0 if arguments == ["--help"] else 2), done.stderr
    assert children_seconds() - before < 5  # 0.3 s; of work, as tests share their cores


def children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
