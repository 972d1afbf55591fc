"""A bridge learns from the frozen decoder's answer to the same said in its own language."""

import json
from pathlib import Path

import pytest
import torch

from speech_peft.backbones import families
from speech_peft.backbones.base import Encoded
from speech_peft.backbones.families import tiny
from speech_peft.core.model import AdaptedModel
from speech_peft.errors import ConfigError
from speech_peft.methods.bridge import Bridge
from speech_peft.recipe import config
from speech_peft.recipe.tasks import AsrConfig, ParallelConfig
from speech_peft.train.data.data import SpeechData
from speech_peft.train.data.heard import Batch
from speech_peft.train.tasks.asr import TeacherForcing
from speech_peft.train.tasks.parallel import Parallel
from speech_peft.train.tasks.scores import Loss
from tests import tiny as small

SAMPLES = 8000


@pytest.fixture
def whisper():
    return tiny("whisper", context="fit")


def batch(parallel) -> Batch:
    audio = 0.1 * torch.randn(2, SAMPLES, generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor([SAMPLES, SAMPLES])
    return Batch(audio, lengths, ["one two", "three"], ["a", "b"], parallel=parallel)


def taught(whisper, clips: Batch, *, form: str = "add", **config):
    """The plain decoder's training, the loss with a teacher, and the teacher."""
    model = AdaptedModel(whisper.module, whisper.sites(), {"english": Bridge(form=form)})
    forcing = TeacherForcing(whisper, AsrConfig(name="asr", decoder="whisper"))
    parallel = Parallel(whisper, model, ParallelConfig(**config), smoothing=0.0)
    tokens = forcing.tokens(clips.texts, clips.audio.device)

    @torch.no_grad()
    def loss() -> Loss:
        return parallel.loss(encoded(whisper, clips), clips, *tokens)

    return forcing, loss, parallel


def encoded(whisper, clips: Batch) -> Encoded:
    return whisper.encode(whisper.prepare(clips.audio, clips.lengths))


def test_clips_without_a_teacher_learn_from_their_text(whisper):
    clips = batch((None, None))
    forcing, loss, _ = taught(whisper, clips)
    of_text = forcing.loss(encoded(whisper, clips), clips.texts, ["", ""])
    torch.testing.assert_close(loss().total, of_text.total.detach())


def test_who_hears_what_the_teacher_hears_and_changes_nothing_has_nothing_to_learn(whisper):
    clips = batch(tuple(batch(()).audio.numpy()))
    forcing, loss, _ = taught(whisper, clips)  # a fresh bridge is the identity
    found = loss()
    assert found.targets == forcing.loss(encoded(whisper, clips), clips.texts, ["", ""]).targets
    assert float(found.total) < 1e-3  # the teacher is kept in half precision


def test_the_teacher_hears_its_own_recording_and_never_the_bridge(whisper):
    clips = batch((batch(()).audio[0].numpy(), None))  # the first clip's own samples
    forcing, loss, teacher = taught(whisper, clips, form="replace")
    loss()
    bare = tiny("whisper", context="fit")
    tokens = forcing.tokens(clips.texts, torch.device("cpu"))
    with torch.no_grad():
        states = bare.decoder(
            input_ids=tokens[0], encoder_hidden_states=encoded(bare, clips).states, use_cache=False
        ).last_hidden_state
    (kept,) = teacher._kept.values()
    torch.testing.assert_close(kept[-1].float(), states[0, tokens[1][0] >= 0], atol=1e-2, rtol=1e-2)


def test_a_manifest_of_translations_is_learned_by_a_bridge_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    small.use_tiny_backbones()
    manifest = small.corpus(tmp_path, clips=4, seconds=0.8)
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    for i, row in enumerate(rows):
        row |= {"text": "ne", "english": row["text"], **({"target_audio": f"{i}.wav"} if i % 2 else {})}
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    recipe = Path(tmp_path, "recipe.yaml")
    recipe.write_text(config.find("asr/bridge").read_text())
    over = [
        "trainer.max_minutes=null",
        "trainer.max_steps=30",
        "optim.lr=1e-2",
        "trainer.max_trainable_pct=90",
    ]
    over += ["trainer.log_every_steps=1", f"out={tmp_path}/run", "task.label_smoothing=0", "optim.warmup=0"]
    told = config.read(str(recipe), [f"data.train={manifest}", f"data.valid={manifest}", *over])
    data = SpeechData(told, tiny("whisper"), tmp_path)
    assert set(data.texts) == {row["english"] for row in rows}
    trained = small.run(recipe, f"data.train={manifest}", f"data.valid={manifest}", *over)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    losses = [row["loss"] for row in map(json.loads, lines) if "loss" in row]
    assert losses[-1] < 0.9 * losses[0]
    assert trained.scores is not None


def test_a_teacher_is_refused_without_a_decoder_of_its_own():
    with pytest.raises(ConfigError, match="parallel: the teacher is Whisper's own decoder"):
        config.read("asr/bridge", ["task.decoder=ctc", "data.train=a", "data.valid=b"])
