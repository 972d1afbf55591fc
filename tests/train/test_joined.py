"""Neighbours joined to windows: each clip once, in order, with the pauses that were drawn."""

import json

import numpy as np
import pytest
import soundfile
import torch

from speech_peft.audio import manifest
from speech_peft.audio.degrade import Degrader, parse
from speech_peft.backbones import families
from speech_peft.errors import ConfigError
from speech_peft.recipe import config
from speech_peft.recipe.parts import JoinConfig
from speech_peft.train import fit
from speech_peft.train.data.clips import Clips
from speech_peft.train.data.heard import Bad, Heard
from speech_peft.train.data.joined import JoinedBatches, Windows
from tests import tiny

RATE = 16000
SECONDS = np.random.default_rng(1).uniform(1.0, 9.0, 400)


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()


def windows(lengths=SECONDS, seed=0, **fields) -> Windows:
    return Windows(lengths, JoinConfig(**fields), seed)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6])
def test_every_clip_is_heard_once_in_an_epoch_and_windows_hold_their_share(share):
    found = windows(share=share)
    heard = [index for window in found.of(3) for index in window.clips]
    assert heard == list(range(len(SECONDS)))
    joined = sum(SECONDS[w.first : w.last + 1].sum() for w in found.of(3) if w.last > w.first)
    assert joined / SECONDS.sum() == pytest.approx(share, abs=0.05)


def test_no_window_is_longer_than_was_asked_and_its_seconds_count_the_pauses():
    found = windows(seconds=(10.0, 20.0), share=1.0, pause_seconds=(0.5, 1.0))
    lengths = found.seconds(0)
    assert lengths.max() <= 20.0
    for window, length in zip(found.of(0), lengths, strict=True):
        assert len(window.pauses) == len(window.clips) - 1
        assert length == pytest.approx(SECONDS[window.first : window.last + 1].sum() + sum(window.pauses))


def test_a_window_leaves_room_for_what_slower_speech_adds(tmp_path):
    settings = ["data.join={share: 1, seconds: [29, 29]}", "data.degrade=[{kind: speed, rate: [0.5, 1]}]"]
    read = config.read(str(tiny.recipe(tmp_path)), settings)
    assert fit.build(read, config.methods_of(read))[1].train_clips.windows.longest == pytest.approx(15.0)
    assert Windows(SECONDS, JoinConfig(share=1.0), 0, 15.0).seconds(0).max() <= 15.0


def test_windows_are_a_function_of_seed_and_epoch():
    assert windows().of(1) == windows().of(1)
    assert windows().of(1) != windows().of(2)
    assert windows().of(1) != windows(seed=1).of(1)


def test_all_processes_together_take_every_window_of_the_epoch():
    found = windows()
    taken = [b for rank in range(2) for b in _batches(JoinedBatches(found, 60.0, 0, rank, 2), epoch=1)]
    assert {index for batch in taken for index in batch} == set(range(len(found.of(1))))
    assert all(found.seconds(1)[batch].max() * len(batch) <= 60.0 for batch in taken)


def _batches(batches: JoinedBatches, epoch: int):
    batches.set_epoch(epoch)
    return list(batches)


def clips(folder, degrade=()) -> Clips:
    rows = []
    for i in range(3):
        soundfile.write(folder / f"{i}.wav", 0.1 * np.random.default_rng(i).standard_normal(RATE), RATE)
        rows.append({"id": str(i), "audio": f"{i}.wav", "text": f"word {i}"})
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = Clips(manifest.read(path), RATE, Degrader(parse(degrade)) if degrade else None)
    found.windows = windows(np.ones(3), share=1.0, seconds=(9.0, 9.0), pause_seconds=(0.25, 0.25))
    return found


def test_a_window_is_its_clips_with_silence_between_and_says_all_their_words(tmp_path):
    found = clips(tmp_path)
    window = found[0, 0]
    assert isinstance(window, Heard)
    alone, pause = [found.samples(i) for i in range(3)], np.zeros(RATE // 4)
    joined = np.concatenate([alone[0], pause, alone[1], pause, alone[2]])
    assert np.array_equal(window.example.samples, joined)
    assert window.example.text == "word 0 word 1 word 2"


def test_what_is_learned_from_beside_a_degraded_window_is_the_window_as_recorded(tmp_path):
    found = clips(tmp_path, [{"kind": "speed", "rate": 1.1}, {"kind": "noise", "snr": 0}])
    found.beside = True
    heard = found[0, 0].example
    faster = clips(tmp_path, [{"kind": "speed", "rate": 1.1}])[0, 0].example.samples
    assert np.array_equal(heard.target, faster)
    assert not np.allclose(heard.samples, heard.target)


def test_a_window_with_a_clip_that_cannot_be_read_is_told_of(tmp_path):
    found = clips(tmp_path)
    (tmp_path / "1.wav").write_bytes(b"nothing")
    window = found[0, 0]
    assert isinstance(window, Bad)
    assert window.audio.endswith("1.wav")


def test_a_run_on_windows_with_distillation_goes_on_where_it_stopped(tmp_path):
    settings = ["data.join={share: 0.7, seconds: [1, 3]}", "task.distil=1"]
    settings += ["data.degrade=telephone", "optim.schedule=constant"]
    path = tiny.recipe(tmp_path)
    whole = tiny.run(path, f"out={tmp_path / 'whole'}", *settings)
    tiny.run(path, "trainer.max_steps=3", *settings)
    resumed = tiny.run(path, *settings, resume=True)
    assert (whole.steps, resumed.steps) == (6, 6)
    both = [(run.folders[0] / "adapter.safetensors").read_bytes() for run in (whole, resumed)]
    assert both[0] == both[1]


def strayed(folder, *settings):
    """How far the encoder strays on one batch."""
    read = config.read(str(tiny.recipe(folder)), ["task.distil=1", *settings])
    task, data = fit.build(read, config.methods_of(read))
    task.backbone.max_seconds = 1.5  # so that the clips fill their window
    batch = next(iter(data.train_dataloader()))
    task.eval()
    return float(task._strayed(task.encode(batch), batch).detach())


def test_an_adapter_that_changes_nothing_strays_only_by_what_was_degraded(tmp_path):
    full = "backbone.context=full"
    assert strayed(tmp_path, full) == pytest.approx(0.0, abs=1e-9)
    assert strayed(tmp_path, full, "data.degrade=telephone") > 1e-5


def test_windows_beyond_the_native_length_have_no_teacher(tmp_path, monkeypatch):
    read = config.read(str(tiny.recipe(tmp_path)), ["task.distil=1"])
    task, data = fit.build(read, config.methods_of(read))
    batch, asked = next(iter(data.train_dataloader())), []
    monkeypatch.setattr(task, "_strayed", lambda *given: asked.append(True) or torch.tensor(0.0))
    for native, teaches in ((24_000, True), (1_600, False), (144_000, False)):
        monkeypatch.setattr(task, "_native", lambda native=native: native)
        asked.clear()
        task.loss(batch)
        assert bool(asked) == teaches, native


def test_speed_after_noise_is_refused_where_states_are_distilled(tmp_path):
    steps = "data.degrade=[telephone, {kind: speed}]"
    with pytest.raises(ConfigError, match=r"data\.degrade: .*put the step `speed` first"):
        strayed(tmp_path, steps)


def test_joining_is_refused_where_it_means_nothing(tmp_path):
    for settings in (["task={name: classify}"], ["data.cache={where: memory}"]):
        with pytest.raises(ConfigError, match="join"):
            config.read(str(tiny.recipe(tmp_path)), [*settings, "data.join.share=0.5"])
