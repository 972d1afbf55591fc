"""Several microphones in training: rows of one batch that belong together, and what is left out of it."""

import json

import numpy as np
import pytest
import torch

from speech_peft.audio import io
from speech_peft.audio.batch import Example
from speech_peft.backbones import families
from speech_peft.errors import ConfigError
from speech_peft.opening import loading
from speech_peft.recipe import config
from speech_peft.train import fit
from speech_peft.train.data.heard import Heard, gather
from speech_peft.transcribe.transcriber import Transcriber
from tests import tiny
from tests.contract.laws import fill

NOISE = (0.1 * np.random.default_rng(0).standard_normal((3, 8000))).astype(np.float32)
VIEWS = "adapters={a: {method: attention, keys: views, rank: 4, window: 1}}"


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)  # put back afterwards
    tiny.use_tiny_backbones()


def heard(id: str, *views: np.ndarray) -> Heard:
    return Heard(id, Example(id, views[0], f"text of {id}"), views=views if len(views) > 1 else ())


def test_microphones_of_a_clip_are_rows_that_follow_each_other():
    batch = gather([heard("a", *NOISE), heard("b", NOISE[1])])
    assert (batch.views, batch.clips) == (3, 2)
    assert batch.lengths.tolist() == [8000, 8000, 8000, 8000, 0, 0]
    assert batch.texts == ["text of a"] * 3 + ["text of b"] * 3
    np.testing.assert_array_equal(batch.audio[:4], [*NOISE, NOISE[1]])
    assert batch.first(1).sources == ["a"] * 3


def test_a_microphone_that_is_silent_to_the_last_bit_has_no_samples():
    batch = gather([heard("a", NOISE[0], 0 * NOISE[1])])
    assert batch.lengths.tolist() == [8000, 0]


def test_where_nobody_has_several_a_batch_is_what_it_was():
    batch = gather([heard("a", NOISE[0]), heard("b", 0 * NOISE[1])])
    assert batch.views == 1
    assert batch.lengths.tolist() == [8000, 8000]


@pytest.fixture
def array(tmp_path):
    """A corpus whose first clip has a file of three channels, the second two files, and all others one."""
    path = tiny.recipe(tmp_path)
    data = tmp_path / "data"
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    first = io.load(data / "0.wav").samples
    io.save(data / "0.wav", np.stack([first, 0.1 * first, -first], 1), 16_000)
    rows[1]["audio"] = ["1.wav", "1b.wav"]
    io.save(data / "1b.wav", 0.5 * io.load(data / "1.wav").samples, 16_000)
    (data / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def built(path, *over: str):
    recipe = config.read(str(path), [VIEWS, "data.channels=views", *over])
    return fit.build(recipe, config.methods_of(recipe))


@pytest.mark.parametrize("preload", [0, 1])
def test_channels_and_files_of_a_row_are_views_of_its_clip(array, preload):
    _, data = built(array, f"data.preload_hours={preload}")
    views = [len(data.train_clips[0, place].views) for place in range(3)]
    assert views == [3, 2, 0]


def test_what_recorded_nothing_is_neither_learned_nor_listened_to(array):
    task, data = built(array)
    fill(task.model, "a", 0)
    clips = [data.train_clips[0, place] for place in (0, 1)]
    together = gather(clips)
    assert together.lengths.tolist().count(0) == 1
    with torch.no_grad():
        losses = []
        for batch in (together, gather(clips[:1]), gather(clips[1:])):
            width = together.audio.shape[1]
            audio = torch.nn.functional.pad(batch.audio, (0, width - batch.audio.shape[1]))
            batch = type(batch)(**{**vars(batch), "audio": audio})
            with task.model.context(task.context(batch)):
                losses.append(task.loss(batch))
    whole, *each = losses
    assert whole.targets == sum(loss.targets for loss in each)
    torch.testing.assert_close(whole.total, each[0].total + each[1].total)


def test_a_recipe_with_an_array_learns_from_all_microphones(tmp_path, monkeypatch):
    taps = [np.eye(1, 40, 7 * view, dtype=np.float32)[0] for view in range(2)]
    monkeypatch.setattr("speech_peft.audio.degradations.array.responses_of", lambda *_: (taps, {}))
    path = tiny.recipe(tmp_path)
    steps = "data.degrade=[{kind: array, views: 2}, {kind: noise, snr: [-5, 20]}]"
    over = [
        VIEWS,
        "data.channels=views",
        steps,
        f"data.valid={tmp_path}/data/train.jsonl",
        "data.max_valid=2",
    ]
    tiny.run(path, *over, "trainer.max_steps=2")
    tensors = torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)["state_dict"]
    learned = [x.abs().max().item() for name, x in tensors.items() if name.endswith("out.b")]
    assert len(learned) == 2
    assert min(learned) > 0


@pytest.mark.parametrize(
    ("over", "reason"),
    [
        (["data.channels=views"], "data.channels: no adapter listens to other microphones"),
        ([VIEWS], "adapters.a: it listens to other microphones; give data.channels=views"),
        ([VIEWS, "data.channels=views", "data.join={}"], "data.join: knows nothing of several microphones"),
        ([VIEWS, "data.degrade=[{kind: array}]"], "data.channels=views hears them"),
    ],
)
def test_what_does_not_go_together_is_said_before_the_first_step(tmp_path, over, reason):
    path = tiny.recipe(tmp_path)

    def build() -> None:
        recipe = config.read(str(path), over)
        fit.build(recipe, config.methods_of(recipe))

    with pytest.raises(ConfigError, match=reason):
        build()


def test_a_ctc_layer_learns_from_all_and_does_not_say_whose_text_is_surest(array, tmp_path, monkeypatch):
    ctc = ["task.decoder=ctc", VIEWS, "data.channels=views", "trainer.max_steps=1"]
    tiny.run(array, *ctc)
    monkeypatch.setattr(loading, "open_backbone", families.open_backbone)
    trained = tmp_path / "run" / "a"
    with pytest.raises(ConfigError, match="Whisper's own decoder says whose text is given"):
        Transcriber(adapter=trained)
    (result,) = Transcriber(adapter=trained, channels="first", vad="none").transcribe(NOISE.T)
    assert result.error is None
