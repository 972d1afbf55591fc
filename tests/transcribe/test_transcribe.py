"""The command on a folder with good recordings and with every bad one we could think of."""

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from speech_peft.backbones.families import tiny
from speech_peft.core.model import AdaptedModel
from speech_peft.decoders.diffusion.by_device import passes
from speech_peft.decoders.diffusion.kinds.whisper_masked import WhisperMasked
from speech_peft.decoders.diffusion.sample import Sampling, falling
from speech_peft.errors import ConfigError
from speech_peft.opening.loading import Opened
from speech_peft.transcribe.__main__ import main
from speech_peft.transcribe.decoding import sampling
from speech_peft.transcribe.result import TranscribeOptions
from speech_peft.transcribe.transcriber import Transcriber

RATE = 16_000


def speechlike(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """Loud bursts over a faint floor: the energy detector takes them for speech."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * rate)) / rate
    envelope = np.where(np.sin(2 * np.pi * 1.5 * t) > -0.5, 0.2, 1e-4)
    return (rng.standard_normal(len(t)) * envelope).astype(np.float32)


@pytest.fixture
def decoder(request) -> str:
    """Which decoder writes."""
    return getattr(request, "param", "autoregressive")


EVERY_DECODER = pytest.mark.parametrize("decoder", ["autoregressive", "diffusion", "verified"], indirect=True)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch, decoder):
    def load(adapter, weights, device, offline, **options):
        backbone = tiny("whisper", context="fit")
        heads = {} if decoder == "autoregressive" else {"diffusion": WhisperMasked(backbone).eval()}
        return Opened(backbone, AdaptedModel(backbone.module, backbone.sites(), {}), heads=heads)

    monkeypatch.setattr("speech_peft.transcribe.transcriber.load", load)


ALL = ("--output_format", "all", "--word_timestamps")


def go(*arguments: object) -> int:
    return main([*map(str, arguments), "--vad", "energy", "--quiet"])


def rows(out: Path, name: str) -> list[dict]:
    return [json.loads(line) for line in (out / ".speech_peft" / name).read_text().splitlines()]


@EVERY_DECODER
def test_a_folder_becomes_a_mirrored_folder_of_texts(tmp_path, decoder):
    for i, name in enumerate(("a.wav", "deep/er/b.flac")):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / name, speechlike(1.3 + i), RATE)
    assert go(tmp_path / "in", "-o", tmp_path / "out", *ALL, "--decoder", decoder) == 0
    for format in ("txt", "srt", "vtt", "tsv", "json", "jsonl"):
        assert (tmp_path / "out" / f"deep/er/b.{format}").is_file()
    read = json.loads((tmp_path / "out/deep/er/b.json").read_text())
    assert read["duration"] == pytest.approx(2.3, abs=0.01)
    words = [word for segment in read["segments"] for word in segment["words"]]
    assert all(0 <= word["start"] <= word["end"] <= 2.4 for word in words)


@EVERY_DECODER
def test_silence_gives_an_empty_text(tmp_path, decoder):
    soundfile.write(tmp_path / "a.wav", np.zeros(60 * RATE, np.float32), RATE)
    assert go(tmp_path / "a.wav", "-o", tmp_path / "out", "--decoder", decoder) == 0
    assert (tmp_path / "out/a.txt").read_text() == ""


def hostile(folder: Path) -> dict[str, str | None]:
    """Twenty files nobody should have, and what the row of each says (None: it is done)."""
    folder.mkdir()
    good = speechlike(1.2)
    write = soundfile.write
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no audio at all, whatever its name says\n" * 20)
    (folder / "random.mp3").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "zeros.flac").write_bytes(bytes(4000))
    bad = good.copy()
    bad[500] = np.nan
    write(folder / "nan.wav", bad, RATE, subtype="FLOAT")
    bad[500] = np.inf
    write(folder / "inf.wav", bad, RATE, subtype="FLOAT")
    write(folder / "header_only.wav", good[:0], RATE)
    write(folder / "one_sample.wav", good[:1], RATE)
    write(folder / "clipped.wav", np.clip(good * 50, -1, 1), RATE)
    write(folder / "eight_channels.wav", np.stack([good] * 8, 1), RATE)
    write(folder / "rate_96k.wav", speechlike(1.0, rate=96_000), 96_000)
    write(folder / "rate_8k.wav", speechlike(1.0, rate=8_000), 8_000)
    write(folder / "truncated.wav", speechlike(4.0), RATE)
    whole = (folder / "truncated.wav").read_bytes()
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 3])
    write(folder / "same.wav", good, RATE)
    write(folder / "same.flac", good, RATE)
    os.symlink(folder / "nowhere", folder / "broken_link.wav")
    os.symlink(folder / "self.wav", folder / "self.wav")
    os.symlink(folder, folder / "loop")
    os.mkfifo(folder / "pipe.wav")
    (folder / "a_folder.wav").mkdir()
    write(folder / "ein schöner name\n.wav", good, RATE)
    write(os.fsencode(folder) + b"/not\xffutf8.wav", good, RATE)
    return {
        "empty.wav": "empty",
        "text.wav": "not audio",
        "random.mp3": "",
        "zeros.flac": "audio",
        "nan.wav": "NaN",
        "inf.wav": "NaN",
        "header_only.wav": "no samples",
        "one_sample.wav": None,
        "clipped.wav": None,
        "eight_channels.wav": None,
        "rate_96k.wav": None,
        "rate_8k.wav": None,
        "truncated.wav": None,
        "same.wav": "same.flac",
        "same.flac": None,  # the first of two with one output
        "broken_link.wav": "no such file",
        "self.wav": "symbolic links",
        "pipe.wav": "regular file",
        "ein schöner name\n.wav": None,
        "not\udcffutf8.wav": None,
    }


@pytest.mark.parametrize("decoder", ["autoregressive", "diffusion"], indirect=True)
def test_each_of_twenty_hostile_files_is_a_row_and_the_rest_is_done(tmp_path, decoder):
    expected = hostile(tmp_path / "in")
    assert len(expected) == 20
    assert go(tmp_path / "in", "-o", tmp_path / "out", "--decoder", decoder) == 3
    entries = {Path(row["audio"]).name: row for row in rows(tmp_path / "out", "ledger.jsonl")}
    assert entries.keys() == expected.keys()
    for name, reason in expected.items():
        if reason is None:
            assert entries[name]["error"] is None, name
        else:
            assert reason in entries[name]["error"], name
    assert entries["truncated.wav"]["status"] == "truncated"
    failed = {Path(row["path"]).name for row in rows(tmp_path / "out", "errors.jsonl")}
    assert failed == {name for name, reason in expected.items() if reason is not None}


def test_a_second_run_opens_no_model(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", speechlike(1.0), RATE)
    assert go(tmp_path / "a.wav", "-o", tmp_path / "out") == 0
    monkeypatch.setattr(
        "speech_peft.transcribe.transcriber.load", lambda *_, **__: pytest.fail("a model was opened")
    )
    assert go(tmp_path / "a.wav", "-o", tmp_path / "out") == 0


def test_a_dry_run_says_what_and_why_and_writes_nothing(tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", speechlike(1.0), RATE)
    assert go(tmp_path / "a.wav", "-o", tmp_path / "out", "--dry-run") == 0
    assert "(new)" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_manifest_names_outputs_by_id_and_takes_slices(tmp_path):
    soundfile.write(tmp_path / "a.wav", speechlike(4.0), RATE)
    lines = [{"id": f"call/{i}", "audio_filepath": "a.wav", "offset": i, "duration": 1.5} for i in range(2)]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert go(tmp_path / "list.jsonl", "-o", tmp_path / "out", "-f", "json") == 0
    assert json.loads((tmp_path / "out/call/1.json").read_text())["duration"] == pytest.approx(1.5, abs=0.01)


@pytest.mark.parametrize(
    "arguments",
    [["--nonsense"], ["gone.wav"], ["x", "--vad", "silera"], ["x", "-f", "str"], ["x", "--beam-size", "0"]],
)
def test_wrong_usage_is_2(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["--nonsense"], ["gone.wav"]])
def test_help_and_wrong_arguments_are_quick_and_need_no_torch(arguments, tmp_path):
    code = (
        "import sys; from speech_peft.transcribe.__main__ import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules; sys.exit(code)"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == (0 if arguments == ["--help"] else 2), done.stderr
    assert "Traceback" not in done.stderr
    assert time.perf_counter() - started < 10  # 1 s by itself; tests share their cores


@pytest.mark.parametrize("how", [["-o", "-"], ["--print"]])
def test_text_goes_to_standard_output_in_the_order_given_and_into_no_file(tmp_path, capsys, monkeypatch, how):
    for name, seconds in (("b.wav", 2.0), ("a.wav", 1.0)):
        soundfile.write(tmp_path / name, speechlike(seconds), RATE)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.wav").write_bytes(b"RIFF no more")
    assert go("b.wav", "-o", "kept") == 0
    assert go("b.wav", *how) == 0
    assert capsys.readouterr().out == Path("kept/b.txt").read_text()
    before = sorted(tmp_path.rglob("*"))
    assert go("b.wav", "a.wav", "broken.wav", *how, "-f", "srt") == 3
    shown = capsys.readouterr()
    assert [line for line in shown.out.splitlines() if "==>" in line] == [
        "==> 'b.wav' <==",
        "==> 'a.wav' <==",
    ]
    assert "failed: broken.wav" in shown.err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--print", "-o", "x"], "--print and --out x"),
        (["--print", "-f", "txt,srt"], "--format: txt, srt"),
        (["--max-line-count", "2"], "--max-line-width"),
        (["--task", "translate"], "only transcribes English"),
        (["--decoder", "diffusion"], "brings no decoder by diffusion"),
        (["--candidates", "4"], "--steps and --candidates"),
        (["--steps", "soon"], "a whole number from 1 to 64, or auto"),
    ],
)
def test_what_cannot_be_printed_or_shaped_or_translated_is_said(tmp_path, capsys, wrong, said):
    soundfile.write(tmp_path / "a.wav", speechlike(1.0), RATE)
    assert go(tmp_path / "a.wav", *([] if "--print" in wrong else ["-o", tmp_path / "out"]), *wrong) == 2
    assert said in capsys.readouterr().err


def test_what_was_transcribed_before_prompts_were_there_is_done(tmp_path):
    """An option that came later and is not given is none of the settings that outputs are known by."""
    later = {"task", "prompt", "hotwords", "decoder", "steps", "candidates", "selection"}
    assert not later & TranscribeOptions().asked().keys()
    given = TranscribeOptions(task="translate", prompt="a", hotwords="b", decoder="diffusion", steps=2)
    given = replace(given, candidates=2, selection="mbr")
    assert later <= given.asked().keys()


def test_auto_is_what_is_not_said_and_none_and_follows_the_device():
    """Texts made before auto could be said are still known."""
    said = TranscribeOptions(steps="auto", candidates="auto")
    assert said == TranscribeOptions() == TranscribeOptions(steps=None, candidates=None)  # type: ignore[arg-type]
    assert not {"steps", "candidates"} & said.asked().keys()
    on_cpu, on_gpu = (sampling(said, device) for device in ("cpu", "cuda"))
    assert (on_cpu.candidates, on_cpu.steps) == (1, passes("auto", 1, "cpu"))
    assert (on_gpu.candidates, on_gpu.steps) == (1, passes("auto", 1, "cuda"))
    many = sampling(replace(said, candidates=8), "cuda")
    assert (many.candidates, len(many.ratios)) == (8, passes("auto", 8, "cuda"))
    few = replace(said, candidates=3, steps=2)
    assert {
        (sampling(few, device).candidates, sampling(few, device).ratios) for device in ("cpu", "cuda")
    } == {(3, falling(2))}
    with pytest.raises(ConfigError, match="candidates: 'many'"):
        TranscribeOptions(candidates="many")  # type: ignore[arg-type]


@pytest.mark.parametrize("decoder", ["diffusion"], indirect=True)
@pytest.mark.parametrize("name", ["diffusion", "verified"])
def test_auto_can_be_said_to_a_decoder_by_diffusion(decoder, name):
    both = [Transcriber(decoder=name, **more) for more in ({}, {"steps": "auto", "candidates": "auto"})]
    one, other = (getattr(found.engine, "drafter", found).engine.sampling for found in both)
    assert one == other == Sampling(steps=8 if name == "diffusion" else 1)
