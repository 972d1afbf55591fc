"""Clips of a speaker, and of others: never the clip itself, never the same voice."""

import numpy as np
import pytest
import torch

from speech_peft.audio.manifest import Row
from speech_peft.backbones import families
from speech_peft.core.model import AdaptedModel
from speech_peft.errors import ConfigError
from speech_peft.methods.attention import Attention
from speech_peft.opening.enrolment import enrolled
from speech_peft.recipe import config
from speech_peft.train import fit
from speech_peft.train.data.voices import Voices
from speech_peft.train.tasks import base as tasks
from tests import tiny

ROWS = [Row(str(i), "", speaker="ab"[i // 3]) for i in range(6)]  # type: ignore[arg-type]


def voices(rows=ROWS) -> Voices:
    """Clips of a second at ten samples a second; each sample says which clip it is of."""
    return Voices(rows, lambda place: np.full(10, place, np.float32), 10)


@pytest.mark.parametrize("index", range(6))
def test_another_talker_is_somebody_else(index):
    drawn = {int(voices().stranger(index, np.random.default_rng(i))[0]) for i in range(30)}
    assert drawn == ({3, 4, 5} if index < 3 else {0, 1, 2})


def test_enrolled_are_other_clips_of_the_same_voice_as_long_as_was_drawn():
    lengths = set()
    for epoch in range(20):
        heard = voices().same(4, (0.5, 1.8), seed=0, epoch=epoch)
        assert set(heard.tolist()) <= {3, 5}
        lengths.add(len(heard))
        np.testing.assert_array_equal(heard, voices().same(4, (0.5, 1.8), seed=0, epoch=epoch))
    assert min(lengths) >= 5
    assert max(lengths) <= 18
    assert len(lengths) > 5
    assert len(voices().same(4, (9.0, 9.0), seed=0, epoch=0)) == 20  # all there is


def test_a_voice_with_one_clip_has_nothing_enrolled():
    assert not len(voices([*ROWS, Row("6", "", speaker="c")]).same(6, (1, 2), 0, 0))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [([*ROWS, Row("6", "")], "6: the manifest names no speaker"), (ROWS[:3], "has one speaker, a")],  # type: ignore[arg-type]
)
def test_nobody_named_or_nobody_else_is_said_before_the_first_step(rows, reason):
    with pytest.raises(ConfigError, match=reason):
        voices(rows).check()


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        (["data.enrol={}"], "no adapter listens to a reference"),
        (["adapters={a: {method: attention}}"], r"layers\.0\.attn: the adapter listens to a reference"),
    ],
)
def test_clips_that_nobody_listens_to_and_a_listener_without_clips_are_refused(
    tmp_path, monkeypatch, over, reason
):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()
    path = tiny.recipe(tmp_path)
    tiny.corpus(tmp_path / "data", speakers=2)
    read = config.read(str(path), over)
    with pytest.raises(ConfigError, match=reason):
        fit.build(read, config.methods_of(read))


def test_a_batch_in_which_nobody_has_other_clips_hears_nothing():
    whisper = families.tiny("whisper", context="fit")
    model = AdaptedModel(whisper.module, whisper.sites(), {"a": Attention(rank=4)})
    heard = enrolled(model, whisper, torch.zeros(2, 0), torch.tensor([0, 0]))
    assert not heard.mask.any()


def test_what_is_enrolled_is_encoded_once_and_only_of_clips_that_are_heard(tmp_path, monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()
    rows = []

    def spied(model, backbone, audio, lengths):
        rows.append(len(audio))
        return enrolled(model, backbone, audio, lengths)

    monkeypatch.setattr(tasks, "enrolled", spied)
    path = tiny.recipe(tmp_path, adapters={"a": {"method": "attention", "rank": 4}})
    tiny.corpus(tmp_path / "data", speakers=2)
    over = ["data.enrol={seconds: [0.5, 1]}", "data.native_share=0.5", "data.seconds_per_batch=4"]
    tiny.run(path, *over, "trainer.max_steps=6")
    assert len(rows) == 6
    assert 1 in rows  # at native length one clip has room
    assert max(rows) > 1
