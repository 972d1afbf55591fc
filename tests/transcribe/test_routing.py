"""Whom a fusion listens to in each recording, in json and drawn; what adapters are told of a recording."""

import json
import re

import numpy as np
import pytest
import soundfile
import torch

from speech_peft.backbones.families import tiny
from speech_peft.core.model import AdaptedModel
from speech_peft.decoders.words import whisper_text
from speech_peft.decoders.words.decoded import Decoded
from speech_peft.errors import ConfigError
from speech_peft.folders.formats import formats
from speech_peft.folders.inputs import Job, gather
from speech_peft.methods.bottleneck import Bottleneck
from speech_peft.methods.fusion import Fusion
from speech_peft.methods.poly import Poly
from speech_peft.opening.loading import Opened
from speech_peft.transcribe import transcriber
from speech_peft.transcribe.transcriber import Transcriber
from speech_peft.transcribe.writers import DRAWN, WRITERS, render

RATE = 16_000
SECONDS = {"a": 0.7, "b": 1.0}


@pytest.fixture
def clips(tmp_path):
    for name, seconds in SECONDS.items():
        samples = 0.2 * np.random.default_rng(len(name)).uniform(-1, 1, round(seconds * RATE))
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
    return [tmp_path / f"{name}.wav" for name in SECONDS]


def opened(monkeypatch, methods) -> AdaptedModel:
    """A random tiny model with these adapters behind every address; its text is what it has encoded."""
    backbone = tiny("whisper", context="fit")
    torch.manual_seed(0)
    model = AdaptedModel(backbone.module, backbone.sites(), methods).eval()
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    monkeypatch.setattr(transcriber, "load", lambda *_, **__: Opened(backbone, model))

    def decode(backbone, states, mask, **_):
        sums = (states * mask[..., None]).abs().sum((1, 2))
        return [Decoded(f"{value:.3f}", (), 0.0, 0.0) for value in sums.tolist()]

    monkeypatch.setattr(whisper_text, "decode", decode)
    return model


def fused(monkeypatch) -> AdaptedModel:
    expert = Bottleneck(width=4, sites=("layers.*.block",))
    model = opened(monkeypatch, {"near": expert, "far": expert, "fuse": Fusion(over=("near", "far"))})
    model.activate("fuse")
    return model


def test_a_recording_says_whom_its_fusion_listened_to_and_its_neighbours_have_no_part_in_it(
    monkeypatch, clips
):
    fused(monkeypatch)
    together = list(Transcriber(vad="none").transcribe(clips))
    for result, clip in zip(together, clips, strict=True):
        routing = result.routing
        assert routing.adapters == ("near", "far")
        assert routing.sites == ("layers.0.block", "layers.1.block")
        assert routing.starts == (0.0, 0.5), "steps of half a second of what was heard"
        np.testing.assert_allclose(routing.weights.sum(-1), 1, rtol=1e-5)
        (alone,) = Transcriber(vad="none").transcribe(clip)
        np.testing.assert_allclose(alone.routing.weights, routing.weights, atol=1e-5)
    assert not np.allclose(together[0].routing.weights, together[1].routing.weights, atol=1e-3)


def test_json_holds_the_weights_and_the_page_draws_them(monkeypatch, clips):
    fused(monkeypatch)
    (result,) = Transcriber(vad="none").transcribe(clips[1])
    told = json.loads(render(result, "json"))["routing"]
    assert told["adapters"] == ["near", "far"]
    assert sum(told["sites"]["layers.0.block"].values()) == pytest.approx(1, abs=1e-3)
    assert [step["start"] for step in told["steps"]] == [0.0, 0.5]
    page = render(result, DRAWN)
    assert len(re.findall(r"<rect ", page)) == (1 + 2) * 2 * 2, "the mean and two sites, steps, adapters"
    heights = [float(high) for high in re.findall(r'<rect [^>]*height="([\d.]+)"', page)]
    assert sum(heights[:2]) == pytest.approx(120, abs=0.2)


def test_the_page_is_written_where_it_is_asked_for_by_name_and_refused_where_nothing_chooses(
    monkeypatch, clips
):
    assert DRAWN not in formats(["all"], tuple(WRITERS), (DRAWN,))
    assert formats(["html", "txt"], tuple(WRITERS), (DRAWN,)) == ("html", "txt")
    opened(monkeypatch, {"near": Bottleneck(width=4)})
    with pytest.raises(ConfigError, match="html draws whom a fusion listens to"):
        next(Transcriber(vad="none").work([Job(clips[0], "a")], ["html"]))


def test_each_recording_is_heard_by_the_task_of_its_row_or_by_the_one_that_is_asked_for(monkeypatch, clips):
    """In one batch, and what nobody knows counts as nothing said."""
    opened(monkeypatch, {"mhr": Poly(names=("tel", "far"), skills=2, sites=("layers.*.attn.[qv]",))})
    tasks = ("tel", "far", "", "of another corpus")
    jobs = [Job(clips[0], str(i), task=task) for i, task in enumerate(tasks)]
    texts = [result.text for result in Transcriber(vad="none").transcribe(jobs)]
    alone = [next(iter(Transcriber(vad="none").transcribe([job]))).text for job in jobs]
    assert texts == alone
    assert len({*texts[:3]}) == 3
    assert texts[3] == texts[2]
    asked = [r.text for r in Transcriber(vad="none", adapter_task="far").transcribe(jobs)]
    assert set(asked) == {texts[1]}
    with pytest.raises(ConfigError, match=r"no adapter knows 'fra'. Did you mean 'far'"):
        Transcriber(adapter_task="fra")


def test_a_manifest_s_columns_go_with_its_rows(tmp_path, clips):
    row = {"id": "x", "audio": str(clips[0]), "lang": "cs", "task": "tel"}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (job,) = gather([tmp_path / "rows.jsonl"], frozenset({".wav"}))
    assert (job.task, job.lang) == ("tel", "cs")
