"""Which engine hears, and that a recording's text is the same whichever it is."""

import numpy as np
import pytest
import torch

import speech_peft as sp
from speech_peft.backbones.families import tiny
from speech_peft.core.adapter import NotMergeable
from speech_peft.core.model import AdaptedModel
from speech_peft.decoders.words.decoded import Decoded
from speech_peft.errors import ConfigError
from speech_peft.export.ct2 import write_ct2
from speech_peft.opening.loading import Opened
from speech_peft.transcribe import ct2_folder, engines
from speech_peft.transcribe.transcriber import Transcriber

RATE = 16_000


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights with an address; their decoder listens."""
    pytest.importorskip("ctranslate2")
    backbone = tiny("whisper")
    with torch.no_grad():
        for parameter in backbone.decoder.parameters():
            parameter.mul_(3.0)
    return write_ct2(backbone.module, backbone, tmp_path_factory.mktemp("weights") / "model", "float32")


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("SPEECH_PEFT_CACHE", str(tmp_path_factory.getbasetemp() / "engines-cache"))


@pytest.fixture(scope="module")
def recordings() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [0.3 * rng.standard_normal(round(s * RATE)).astype(np.float32) for s in (0.7, 1.6, 1.4, 2.3)]


def saved(weights, folder, method: sp.Method):
    """An adapter that changes what is heard."""
    with sp.adapt(str(weights), {"own": method}, context="fit") as model:
        for parameter in model.parameters_of("own"):
            torch.nn.init.normal_(parameter, std=0.2)
        return model.save(folder / "own")


def heard(recordings, **options) -> list[str]:
    return [one.text for one in Transcriber(vad="none", context="fit", **options).transcribe(recordings)]


@pytest.mark.parametrize(
    "method",
    [sp.Lora(rank=2, sites=("*.attn.[qv]",)), sp.Bottleneck(width=4, sites=("layers.*.ffn",))],
    ids=["merged", "in the encoder"],
)
def test_ct2_hears_with_an_adapter_what_torch_hears(weights, recordings, tmp_path, monkeypatch, method):
    monkeypatch.setattr(Decoded, "loops", False)  # what a random model writes never ends
    adapter = saved(weights, tmp_path, method)
    ours = heard(recordings, adapter=adapter, engine="torch")
    assert ours != heard(recordings, weights=weights, engine="torch")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            theirs = heard(recordings, adapter=adapter, engine="ct2", dtype="float32", batch_seconds=2.0)
        finally:
            torch.set_num_threads(1)
        assert theirs == ours


def test_auto_takes_ct2_where_the_adapter_merges_and_torch_where_it_does_not(weights, tmp_path):
    merges = saved(weights, tmp_path / "a", sp.Lora(rank=2, sites=("*.attn.[qv]",)))
    stays = saved(weights, tmp_path / "b", sp.Bottleneck(width=4, sites=("decoder.*.ffn",)))
    assert Transcriber(adapter=merges).about["engine"] == "ct2 int8"
    assert Transcriber(adapter=merges, dtype="float32").about["engine"] == "torch float32"
    assert Transcriber(adapter=stays).about["engine"] == "torch float32"
    with pytest.raises(NotMergeable, match=r"in the encoder alone.*--engine torch"):
        Transcriber(adapter=stays, engine="ct2")


def test_weights_are_written_once_and_again_where_they_are_damaged(weights, monkeypatch):
    written: list[str] = []
    write = write_ct2

    def counted(model, backbone, folder, dtype):
        written.append(dtype)
        return write(model, backbone, folder, dtype)

    monkeypatch.setattr("speech_peft.export.ct2.write_ct2", counted)
    backbone = Transcriber(weights, engine="torch").backbone
    for _ in range(2):
        ct2_folder.model(backbone, ("an adapter",), "float32", "cpu")
    assert written == ["float32"]
    file = ct2_folder.folder_of(backbone, ("an adapter",), "float32") / "model.bin"
    file.write_bytes(file.read_bytes()[:1000])
    ct2_folder.model(backbone, ("an adapter",), "float32", "cpu")
    assert written == ["float32"] * 2
    folders = {
        ct2_folder.folder_of(backbone, *key) for key in [((), "int8"), ((), "float32"), (("a",), "int8")]
    }
    assert len(folders) == 3


def in_memory() -> Opened:
    backbone = tiny("whisper")
    return Opened(backbone, AdaptedModel(backbone.module, backbone.sites(), {}))


@pytest.mark.parametrize(
    ("engine", "dtype", "device", "told"),
    [
        ("ctwo", "auto", "cpu", "engine: there is no 'ctwo'. Did you mean 'ct2'"),
        ("torch", "int8", "cpu", "dtype: engine torch has no 'int8', only auto, float32, bfloat16"),
        ("ct2", "bfloat16", "cpu", "dtype: engine ct2 has no 'bfloat16', only auto, int8, float32"),
        ("ct2", "auto", "mps", "engine: ct2 runs on cpu and cuda, not on mps"),
        ("ct2", "auto", "cpu", "this model is in memory alone"),
    ],
)
def test_what_an_engine_cannot_run_is_told(monkeypatch, engine, dtype, device, told):
    monkeypatch.setattr(engines, "installed", lambda: True)
    pytest.importorskip("ctranslate2")
    with pytest.raises(ConfigError, match=told):
        engines.ready(in_memory(), engine, dtype, device)


def test_without_the_package_auto_is_torch_and_ct2_names_the_extra(monkeypatch):
    monkeypatch.setattr(engines, "installed", lambda: False)
    assert engines.ready(in_memory(), "auto", "auto", "cpu").engine.name == "torch"
    with pytest.raises(ConfigError, match=r"pip install 'speech_peft\[ct2\]'"):
        engines.ready(in_memory(), "ct2", "auto", "cpu")
