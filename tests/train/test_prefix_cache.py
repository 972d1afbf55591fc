"""The frozen-prefix cache changes the time a run takes and nothing else."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from speech_peft.backbones import families
from speech_peft.errors import ConfigError
from speech_peft.recipe import config
from speech_peft.train import fit
from speech_peft.train.data.clips import Clips
from speech_peft.train.data.heard import gather
from tests import tiny

TOP = {"a": {"method": "bottleneck", "width": 8, "sites": ["layers.1.ffn"]}}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()


def build(tmp_path, *overrides, **changes):
    recipe = config.read(str(tiny.recipe(tmp_path, "ctc", **{"adapters": TOP, **changes})), overrides)
    return fit.build(recipe, config.methods_of(recipe))


@pytest.mark.parametrize("where", ["memory", "disk"])
@pytest.mark.parametrize("name", ["whisper", "conformer"])
def test_cached_states_equal_computed_ones_alone_or_in_company(tmp_path, where, name):
    backbone = {"name": name, "context": "fit" if name == "whisper" else None}
    task, data = build(tmp_path, f"data.cache={{where: {where}}}", backbone=backbone)
    assert task.cache is not None
    data.train_clips.cached = None  # the clips are wanted once more, to compute from
    batches = [[(0, i) for i in batch] for batch in data._grid(data.train_seconds, 0, 1, shuffle=False)]
    for places in batches:
        for company in (places, places[:1], places):  # computed, then found alone, then found together
            batch = gather([data.train_clips[place] for place in company])
            with torch.no_grad():
                cached = task.cache.encode(batch)
                features = task.backbone.prepare(batch.audio, batch.lengths, pad_to=batch.grid_samples)
                computed = task.backbone.encode(features)
            assert torch.equal(cached.mask, computed.mask)
            torch.testing.assert_close(cached.states, computed.states, atol=1e-5, rtol=1e-5)
    assert task.cache.misses == len(data.train_clips)


def test_training_with_and_without_the_cache_agrees(tmp_path):
    path = tiny.recipe(tmp_path, "ctc", adapters=TOP)
    for out, cache in (("whole", "null"), ("memory", "{where: memory}"), ("disk", "{where: disk}")):
        # One length of clips, so that both ways of batching give the same batches.
        over = ["data.seconds_per_batch=1000", "trainer.max_steps=4", f"out={tmp_path}/{out}"]
        (tmp_path / "equal").mkdir(exist_ok=True)
        manifest = tiny.corpus(tmp_path / "equal", clips=4, seconds=0.5)
        tiny.run(path, *over, f"data.train={manifest}", f"data.cache={cache}")
    whole, *others = (
        load_file(tmp_path / out / "a" / "adapter.safetensors") for out in ("whole", "memory", "disk")
    )
    for other in others:
        torch.testing.assert_close(other, whole, atol=1e-5, rtol=1e-4)


def test_a_clip_that_is_cached_is_not_loaded_again(tmp_path, monkeypatch):
    loads = []
    monkeypatch.setattr(Clips, "recorded", _counting(Clips.recorded, loads))
    path = tiny.recipe(tmp_path, "ctc", adapters=TOP)
    tiny.run(path, "data.cache={where: memory}", "trainer.max_steps=30")
    assert len(loads) == 12


def _counting(recorded, loads):
    def counted(self, index):
        loads.append(index)
        return recorded(self, index)

    return counted


@pytest.mark.parametrize(
    "changed",
    [
        "data.variants=3",
        "seed=1",
        "data.clean=0.5",
        "backbone.context=full",
    ],
)
def test_whatever_changes_the_input_changes_the_key(tmp_path, changed):
    over = ["data.cache={where: memory}", "data.degrade=telephone", "data.variants=2"]
    task, _ = build(tmp_path, *over)
    other, _ = build(tmp_path, *over, changed)
    assert task.cache.key("clip", 8000) != other.cache.key("clip", 8000)
    assert task.cache.key("clip", 8000) != task.cache.key("clip", 16000)


def test_runs_of_one_process_share_what_a_named_memory_keeps(tmp_path):
    name = f"data.cache={{where: memory, folder: {tmp_path}/shared}}"
    first, data = build(tmp_path, name)
    batch = gather([data.train_clips[(0, 0)]])
    first.cache.encode(batch)
    second, _ = build(tmp_path, name, "seed=7")  # as recorded, a clip sounds the same whatever the seed
    second.cache.encode(batch)
    assert (second.cache.hits, second.cache.misses) == (1, 0)
    other, _ = build(tmp_path, "data.cache={where: memory}")
    other.cache.encode(batch)
    assert other.cache.misses == 1
    assert not (tmp_path / "shared").exists()


def test_the_cache_refuses_what_it_could_not_keep_exact(tmp_path):
    cache = "data.cache={where: memory}"
    with pytest.raises(ConfigError, match=r"layers\.0\.tail lies in the first block"):
        build(tmp_path, cache, "adapters.a.sites=['layers.0.tail']")  # nothing below it is frozen
    with pytest.raises(ConfigError, match=r"data\.variants=N"):
        build(tmp_path, cache, "data.degrade=telephone")
    with pytest.raises(ConfigError, match=r"data\.native_share"):
        build(tmp_path, cache, "data.native_share=0.1")


def test_an_adapter_that_does_not_learn_may_lie_below_what_does(tmp_path):
    below = {"method": "bottleneck", "width": 4, "sites": ["layers.0.ffn"]}
    tiny.run(tiny.recipe(tmp_path, "ctc", adapters={"below": below}), f"out={tmp_path}/first")
    both = {**TOP, "below": {"from": str(tmp_path / "first" / "below")}}
    cache = "data.cache={where: memory}"
    with pytest.raises(ConfigError, match=r"layers\.0\.ffn lies in the first block"):
        build(tmp_path, cache, "train=[a, below]", adapters=both)
    task, data = build(tmp_path, cache, adapters=both)
    batch = gather([data.train_clips[(0, 0)]])
    with torch.no_grad():
        computed = task.backbone.encode(task.backbone.prepare(batch.audio, batch.lengths))
        torch.testing.assert_close(task.cache.encode(batch).states, computed.states, atol=1e-5, rtol=1e-5)
    key = task.cache.key("clip", 8000)
    assert key != build(tmp_path, cache)[0].cache.key("clip", 8000)
    changed = load_file(tmp_path / "first/below/adapter.safetensors")
    save_file(
        {name: 2 * values for name, values in changed.items()}, tmp_path / "first/below/adapter.safetensors"
    )
    assert key != build(tmp_path, cache, adapters=both)[0].cache.key("clip", 8000)


@pytest.mark.parametrize("damage", ["cut", "NaN", "other"])
def test_a_damaged_entry_is_computed_again_and_its_clip_loaded_again(tmp_path, damage):
    task, data = build(tmp_path, "data.cache={where: disk}")
    task.cache.encode(gather([data.train_clips[(0, 0)]]))
    (file,) = (tmp_path / "run" / "prefix_cache").glob("*.safetensors")
    whole = file.read_bytes()
    entry = load_file(file)
    if damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    else:
        broken = {**entry, "states": torch.full_like(entry["states"], float("nan"))}
        save_file(broken if damage == "NaN" else {"x": entry["states"]}, file)
    again, data = build(tmp_path, "data.cache={where: disk}")
    batch = gather([data.train_clips[(0, 0)]])
    assert batch.audio.any()  # it was not taken for kept
    again.cache.encode(batch)
    assert (again.cache.hits, again.cache.misses) == (0, 1)
    assert file.read_bytes() == whole


def test_states_that_a_type_cannot_hold_are_not_kept(tmp_path, monkeypatch):
    task, data = build(tmp_path, "data.cache={where: memory, dtype: float16}")
    prefix = type(task.backbone).prefix
    monkeypatch.setattr(type(task.backbone), "prefix", lambda self, *given: prefix(self, *given) * 1e6)
    with pytest.raises(ConfigError, match=r"data\.cache: .*0\.wav has .* not finite .*dtype=float16"):
        task.cache.encode(gather([data.train_clips[(0, 0)]]))
