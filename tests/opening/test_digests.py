"""What made a text or a recording is told by the digest of every adapter that ran."""

import numpy as np
import pytest
import torch

import speech_peft as sp
from speech_peft.backbones.families import tiny
from speech_peft.bench.report import facts
from speech_peft.core.saved.save import read, write
from speech_peft.opening import loading, together
from speech_peft.opening.exchange import exchanged
from speech_peft.predictions.run import Run
from speech_peft.transcribe.choosing import PackChooser
from speech_peft.transcribe.transcriber import Transcriber

KINDS = {
    "low": sp.Lora(rank=2, sites=("layers.0.attn.[qv]",)),
    "high": sp.Bottleneck(width=3, sites=("layers.1.ffn",)),
    "alone": sp.Lora(rank=2, sites=("layers.1.attn.[qv]",)),
}
CLIP = (0.1 * np.random.default_rng(0).standard_normal(8000)).astype(np.float32)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Two adapters of one training, and one that was trained alone."""
    backbone = tiny("whisper", context="fit")
    model = sp.AdaptedModel(backbone.module, backbone.sites(), KINDS)
    beside = {"low": {"low": ".", "high": "../high"}, "high": {"low": "../low", "high": "."}}
    card = backbone.card()
    found = {name: write(tmp_path / name, model, name, card, together=beside.get(name)) for name in KINDS}
    for module in (loading, together):
        monkeypatch.setattr(module, "open_backbone", lambda *_, **__: tiny("whisper", context="fit"), False)
    return found


def test_all_that_run_are_told_by_their_digests_and_one_alone_by_the_name_it_always_had(folders):
    digests = {name: read(folder).digest for name, folder in folders.items()}
    both = {"adapter_sha256": digests["high"], "adapters_sha256": {n: digests[n] for n in ("low", "high")}}
    one = {"adapter_sha256": digests["alone"]}
    opened = loading.load(folders["high"])
    assert opened.digests == both
    opened = exchanged(opened, folders["alone"], torch.device("cpu"))
    assert opened.digests == one
    assert exchanged(opened, folders["high"], torch.device("cpu")).digests == both
    parts = together.load_together([folders["high"], folders["alone"]])
    assert [part.digests for _, part in parts.parts.values()] == [both, one]
    packs = PackChooser.about(type("Packs", (), {"together": parts})())  # type: ignore[arg-type]
    assert packs["packs"] == {name: digests[name] for name in ("high", "alone")}
    assert packs["packs_together"] == {"high": both["adapters_sha256"]}


def test_a_text_tells_them_and_so_does_the_report_of_a_benchmark(folders):
    heard = {
        name: next(iter(Transcriber(adapter=folders[name], engine="torch", vad="none").transcribe([CLIP])))
        for name in ("high", "alone")
    }
    digests = {name: read(folder).digest for name, folder in folders.items()}
    assert heard["high"].about["adapters_sha256"] == {name: digests[name] for name in ("low", "high")}
    assert "adapters_sha256" not in heard["alone"].about
    shown = {name: facts.system(Run(name, (), 0.0, one.about, {})).digest for name, one in heard.items()}
    assert shown["high"] == f"{digests['low'][:12]}, {digests['high'][:12]}"
    assert shown["alone"] == digests["alone"][:12]
