"""Batches by seconds: full, little padded, equal on every rank, resumable."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from speech_peft.audio.batch import DurationBatchSampler, Example, collate
from speech_peft.errors import ConfigError

UNIFORM = np.random.default_rng(0).uniform(1, 30, 1000)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0.1, 60), min_size=0, max_size=80),
    st.integers(1, 8),
    st.floats(1, 200),
    st.booleans(),
    st.integers(0, 3),
)
def test_ranks_agree_on_steps_and_hear_everything_within_the_budget(durations, world, budget, shuffle, epoch):
    samplers = [DurationBatchSampler(durations, budget, 5, rank, world, shuffle) for rank in range(world)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    steps = [list(sampler) for sampler in samplers]
    assert len({len(batches) for batches in steps} | {len(samplers[0])}) == 1
    heard = [clip for batches in steps for batch in batches for clip in batch]
    assert set(heard) == set(range(len(durations)))
    assert len(heard) - len(durations) < world * max(1, len(samplers[0]))
    for batch in (batch for batches in steps for batch in batches):
        assert batch
        assert len(batch) == 1 or len(batch) * max(durations[clip] for clip in batch) <= budget * (1 + 1e-9)


@pytest.mark.parametrize("world", [1, 2, 8])
def test_padding_is_below_a_tenth_and_batches_are_full(world):
    sampler = DurationBatchSampler(UNIFORM, 120, world=world)
    assert sampler.padding() < 0.1
    assert len(sampler) < 1.35 * UNIFORM.sum() / 120 / world + 5


def test_ranks_take_clips_of_like_length_in_each_step():
    ranks = [list(DurationBatchSampler(UNIFORM, 120, rank=rank, world=4)) for rank in range(4)]
    for step in zip(*ranks, strict=True):
        lengths = UNIFORM[[clip for batch in step for clip in batch]]
        assert len(lengths) == 4 or lengths.max() <= 1.31 * lengths.min()


def test_epochs_differ_and_repeat():
    sampler = DurationBatchSampler(UNIFORM, 120, seed=2)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    sampler.set_epoch(0)
    assert first == list(sampler) != second


def test_resumed_sampler_gives_the_rest():
    sampler = DurationBatchSampler(UNIFORM, 120, seed=2)
    sampler.set_epoch(3)
    resumed = DurationBatchSampler(UNIFORM, 120, seed=2)
    resumed.load_state_dict({"epoch": 3, "start_batch": 10})
    assert list(resumed) == list(sampler)[10:]
    assert len(resumed) == len(sampler) - 10


def test_works_as_batch_sampler_of_a_loader():
    clips = [Example(str(n), np.full(n, 0.5, np.float32), text=f"t{n}") for n in range(1, 40)]
    sampler = DurationBatchSampler([len(clip.samples) / 10 for clip in clips], 8)
    batches = list(DataLoader(clips, batch_sampler=sampler, collate_fn=collate))
    assert sorted(id for batch in batches for id in batch.ids) == sorted(clip.id for clip in clips)


def test_collate_pads_with_zeros_and_keeps_order():
    batch = collate(
        [Example("a", np.ones(2, np.float32), "x"), Example("b", np.ones(4, np.float32), label="dog")]
    )
    assert torch.equal(batch.audio, torch.tensor([[1.0, 1, 0, 0], [1, 1, 1, 1]]))
    assert (batch.lengths.tolist(), batch.texts, batch.labels) == ([2, 4], ("x", None), (None, "dog"))
    assert batch.padding == pytest.approx(0.25)


def test_collate_of_nothing_is_an_empty_batch():
    assert collate([]).audio.shape == (0, 0)


def test_pairs_are_padded_alike_and_must_be_complete():
    pair = Example("a", np.ones(3, np.float32), target=np.zeros(3, np.float32))
    assert collate([pair]).targets.shape == (1, 3)
    with pytest.raises(ConfigError, match="b: has no target"):
        collate([pair, Example("b", np.ones(3, np.float32))])


@pytest.mark.parametrize("durations", [[1.0, 0.0], [1.0, float("nan")]])
def test_impossible_duration_is_named(durations):
    with pytest.raises(ConfigError, match="clip 1"):
        DurationBatchSampler(durations, 10)
