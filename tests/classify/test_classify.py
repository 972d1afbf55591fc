"""`classify` from the outside: folders in, labels out, whatever is in the folders."""

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from speech_peft.backbones.families import tiny
from speech_peft.classify.__main__ import main
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved.save import write
from speech_peft.decoders.classifier import ClassifierHead
from speech_peft.methods.bottleneck import Bottleneck

RATE = 16_000


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    def opened(name, weights, revision=None, offline=False, **options):
        return tiny(name, **options)

    monkeypatch.setattr("speech_peft.opening.loading.open_backbone", opened)


@pytest.fixture
def adapter(tmp_path) -> Path:
    return trained(tmp_path / "pets")


def trained(folder: Path, seed: int = 0) -> Path:
    backbone = tiny("whisper", context="fit")
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": Bottleneck(width=4)})
    torch.manual_seed(seed)
    head = ClassifierHead(backbone.dim, ("dog", "cat", "rain"), depth=backbone.depth)
    with torch.no_grad():
        for parameter in model.parameters_of("a"):
            parameter.copy_(0.3 * torch.randn(parameter.shape))
    config = {"classify": head.config()}
    return write(folder, model, "a", backbone.card(), heads={"classify": head}, head_config=config)


def noise(seconds: float, rate: int = RATE) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))).astype(np.float32)


def go(*arguments: object) -> int:
    return main([*map(str, arguments), "--quiet"])


def ledger(out: Path, name: str = "ledger.jsonl") -> list[dict]:
    return [json.loads(line) for line in (out / ".speech_peft" / name).read_text().splitlines()]


def test_a_folder_becomes_a_mirrored_folder_of_labels_for_every_adapter(tmp_path, adapter):
    other = trained(tmp_path / "alarms", seed=1)
    for name, seconds in (("a.wav", 1.0), ("deep/er/b.flac", 4.0)):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(tmp_path / "in" / name, noise(seconds), RATE)
    out = tmp_path / "out"
    options = ["-f", "all", "--window", 2, "--hop", 1, "--top_k", 2]
    assert go(tmp_path / "in", "-o", out, "--adapter", adapter, "--adapter", other, *options) == 0
    lines = [json.loads(line) for line in (out / "deep/er/b.jsonl").read_text().splitlines()]
    assert [(row["adapter"], row["span"], row["start"], row["end"]) for row in lines] == [
        (name, span, start, end)
        for name in ("pets", "alarms")
        for span, start, end in (
            ("clip", 0, 4),
            ("window", 0, 2),
            ("window", 1, 3),
            ("window", 2, 4),
        )
    ]
    assert all(len(row["top"]) == 2 for row in lines)
    assert {row["id"] for row in lines} == {"deep/er/b"}
    table = list(csv.DictReader((out / "a.csv").read_text().splitlines()))
    assert [row["adapter"] for row in table] == ["pets", "alarms"]
    whole = json.loads((out / "a.json").read_text())
    assert float(table[0]["probability_1"]) == whole["adapters"]["pets"]["top"][0][1]


HOSTILE = {
    "empty.wav": "empty",
    "text.wav": "not audio",
    "nan.wav": "NaN",
    "header_only.wav": "no samples",
    "one_sample.wav": None,
    "silence.wav": None,
    "rate_96k.wav": None,
    "truncated.wav": None,
    "same.wav": "same.flac",
    "same.flac": None,  # the first of two with one output
}


def test_each_hostile_file_is_a_row_and_the_rest_is_done(tmp_path, adapter):
    folder, good = tmp_path / "in", noise(1.0)
    folder.mkdir()
    (folder / "empty.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is no audio at all, whatever its name says\n" * 20)
    bad = good.copy()
    bad[500] = np.nan
    soundfile.write(folder / "nan.wav", bad, RATE, subtype="FLOAT")
    soundfile.write(folder / "header_only.wav", good[:0], RATE)
    soundfile.write(folder / "one_sample.wav", good[:1], RATE)
    soundfile.write(folder / "silence.wav", np.zeros(30 * RATE), RATE)
    soundfile.write(folder / "rate_96k.wav", noise(0.5, 96_000), 96_000)
    soundfile.write(folder / "truncated.wav", noise(4.0), RATE)
    whole = (folder / "truncated.wav").read_bytes()
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 3])
    for name in ("same.wav", "same.flac"):
        soundfile.write(folder / name, good, RATE)
    assert go(folder, "-o", tmp_path / "out", "--adapter", adapter) == 3
    entries = {Path(row["audio"]).name: row for row in ledger(tmp_path / "out")}
    assert entries.keys() == HOSTILE.keys()
    for name, reason in HOSTILE.items():
        assert (entries[name]["error"] is None) if reason is None else (reason in entries[name]["error"]), (
            name
        )
    assert entries["truncated.wav"]["status"] == "truncated"
    failed = {Path(row["path"]).name for row in ledger(tmp_path / "out", "errors.jsonl")}
    assert failed == {name for name, reason in HOSTILE.items() if reason is not None}


def test_a_second_run_opens_no_model_and_an_adapter_trained_anew_is_asked_again(
    tmp_path, adapter, monkeypatch
):
    soundfile.write(tmp_path / "a.wav", noise(1.0), RATE)
    arguments = (tmp_path / "a.wav", "-o", tmp_path / "out", "--adapter", adapter)
    assert go(*arguments) == 0
    before = (tmp_path / "out/a.csv").read_text()
    with monkeypatch.context() as patched:
        patched.setattr(
            "speech_peft.classify.classifier.load_together",
            lambda *_, **__: pytest.fail("a model was opened"),
        )
        assert go(*arguments) == 0
    trained(adapter, seed=2)
    assert go(*arguments) == 0
    assert (tmp_path / "out/a.csv").read_text() != before


def test_a_manifest_names_outputs_by_id_and_takes_slices(tmp_path, adapter):
    soundfile.write(tmp_path / "a.wav", noise(4.0), RATE)
    lines = [{"id": f"call/{i}", "audio_filepath": "a.wav", "offset": i, "duration": 1.5} for i in range(2)]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert go(tmp_path / "list.jsonl", "-o", tmp_path / "out", "-f", "json", "--adapter", adapter) == 0
    found = json.loads((tmp_path / "out/call/1.json").read_text())
    assert found["duration"] == pytest.approx(1.5, abs=0.01)
    assert found["id"] == "call/1"


@pytest.mark.parametrize(
    "arguments",
    [
        ["x.wav"],
        ["x.wav", "--adapter", "a", "--nonsense"],
        ["gone.wav", "--adapter", "a"],
        ["x.wav", "--adapter", "a", "--hop", "11"],
        ["x.wav", "--adapter", "a", "--window", "0"],
        ["x.wav", "--adapter", "a", "-f", "srt"],
        ["x.wav", "--adapter", "a", "--top-k", "0"],
    ],
)
def test_wrong_usage_is_2(arguments, capsys):
    assert main(arguments) == 2
    assert capsys.readouterr().err


def test_a_folder_that_is_no_adapter_is_2_and_says_so(tmp_path, capsys):
    soundfile.write(tmp_path / "a.wav", noise(1.0), RATE)
    (tmp_path / "empty").mkdir()
    assert go(tmp_path / "a.wav", "-o", tmp_path / "out", "--adapter", tmp_path / "empty") == 2
    assert "adapter.json" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], ["gone.wav", "--adapter", "a"]])
def test_help_and_wrong_arguments_are_quick_and_need_no_torch(arguments, tmp_path):
    code = (
        "import sys; from speech_peft.classify.__main__ import main; code = main(sys.argv[1:]);"
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules; sys.exit(code)"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == (0 if arguments == ["--help"] else 2), done.stderr
    assert "Traceback" not in done.stderr
    assert time.perf_counter() - started < 10  # 0.2 s by itself; tests share their cores
