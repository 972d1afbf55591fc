"""scripts/on_gpu: what is packed is what is read, and a part that fails or hangs costs no other its time."""

import json
import sys
import time
from pathlib import Path

import pytest
import torch

from speech_peft.backbones.checkpoints import ctranslate2
from speech_peft.methods.lora import Lora

GPU = Path(__file__).parents[2] / "scripts" / "gpu"
PART = """
import json, sys, time
from pathlib import Path
out = Path(sys.argv[2])
out.mkdir(parents=True)
(out / "result.json").write_text(json.dumps({"part": PART}))
if PART == "hangs":
    time.sleep(60)
if PART == "fails":
    raise SystemExit("no such thing")
"""


@pytest.fixture
def gpu(monkeypatch):
    """The scripts' folder on the path."""
    monkeypatch.syspath_prepend(str(GPU / "parts"))
    monkeypatch.syspath_prepend(str(GPU))
    for name in ("run", "pack", "laws", "place"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def test_packed_weights_are_read_to_within_half_a_step(gpu, tmp_path):
    import pack

    random = torch.Generator().manual_seed(0)
    matrix, bias = torch.randn(5, 8, generator=random), torch.randn(5, generator=random)
    heads = torch.tensor(6, dtype=torch.int8)
    pack.write(tmp_path / "model.bin", {"a/weight": matrix, "a/bias": bias, "num_heads": heads})
    found = ctranslate2.read_variables(tmp_path / "model.bin")
    step = matrix.abs().amax(1, keepdim=True) / 127
    assert ((found["a/weight"] - matrix).abs() <= 0.5001 * step).all()
    torch.testing.assert_close(found["a/bias"].float(), bias, rtol=1e-3, atol=1e-3)
    assert int(found["num_heads"]) == 6


def test_a_part_that_hangs_is_stopped_and_the_others_have_their_time(gpu, tmp_path, monkeypatch, capsys):
    import run

    (tmp_path / "parts").mkdir()
    for name in ("hangs", "fails", "works"):
        (tmp_path / "parts" / f"{name}.py").write_text(f"PART = {name!r}\n" + PART)
    parts = (run.Part("hangs", 0.5, True), run.Part("fails", 0.5, True), run.Part("works", 0.5))
    monkeypatch.setattr(run, "PARTS", parts)
    monkeypatch.setattr(run, "HERE", tmp_path)
    began = time.monotonic()
    out = tmp_path / "out"
    run.main([str(tmp_path), str(out), "--minutes", "0.06", "--device", "cpu"])
    assert time.monotonic() - began < 20
    assert {path.stem for path in out.glob("*.json")} == {"machine", "hangs", "fails", "works"}
    assert json.loads((out / "works.json").read_text()) == {"part": "works"}
    assert "fails: ended with 1\nno such thing" in capsys.readouterr().out
    run.main([str(tmp_path), str(out), "--minutes", "0.06", "--device", "cpu"])
    assert "begins" not in capsys.readouterr().out  # all there: nothing is done again


def test_a_method_on_the_cpu_is_what_it_is_on_the_cpu(gpu):
    import laws

    assert laws.compare(Lora(), "whisper", {"context": "fit"}, "cpu") == 0
