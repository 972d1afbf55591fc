"""CTranslate2's decoder, told what ours is told, writes what ours writes."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from speech_peft.backbones.families import tiny
from speech_peft.decoders.words.ct2_engine import Ct2Engine
from speech_peft.decoders.words.engine import TorchEngine
from speech_peft.decoders.words.whisper_text import greedy
from speech_peft.export.ct2 import write_ct2

ctranslate2 = pytest.importorskip("ctranslate2")


@pytest.fixture(scope="module")
def engines(tmp_path_factory) -> tuple[TorchEngine, Ct2Engine]:
    backbone = tiny("whisper", context="fit")
    with torch.no_grad():
        for parameter in backbone.decoder.parameters():  # a random decoder is nearly deaf
            parameter.mul_(3.0)
        states = backbone.encode(features(backbone, 2.0, 1)).states
        (written,) = greedy(backbone, states)
        table = backbone.module.proj_out.weight
        table[backbone.generation.eot] = 1.01 * table[written.tokens[7]]  # and never ends
    folder = write_ct2(backbone.module, backbone, tmp_path_factory.mktemp("ct2") / "model", "float32")
    model = ctranslate2.models.Whisper(str(folder), compute_type="float32", intra_threads=1)
    return TorchEngine(backbone), Ct2Engine(backbone, model)


def features(backbone, seconds: float, rows: int):
    audio = torch.randn(rows, round(seconds * 16_000), generator=torch.Generator().manual_seed(0))
    return backbone.prepare(audio, torch.full((rows,), audio.shape[1]))


@pytest.fixture(scope="module")
def clips(engines):
    """States of clips of 1, 2 and 0.5 s, three of each, padded to 2 s; and which of them are sound."""
    with torch.inference_mode():
        states = [engines[0].encode(features(engines[0].backbone, seconds, 3)) for seconds in (1.0, 2.0, 0.5)]
    lengths = torch.tensor([len(one[0]) for one in states]).repeat_interleave(3)
    longest = int(lengths.max())
    padded = [torch.nn.functional.pad(one, (0, 0, 0, longest - one.shape[1])) for one in states]
    return torch.cat(padded), torch.arange(longest)[None] < lengths[:, None]


def test_it_encodes_clips_at_their_length_as_torch_does(engines):
    ours, theirs = (engine.encode(features(engine.backbone, 1.5, 2)) for engine in engines)
    torch.testing.assert_close(theirs, ours, atol=1e-4, rtol=1e-4)


def test_it_finds_the_same_tokens_with_the_same_scores_within_each_clips_limit(engines, clips):
    states, mask = clips
    prompt = torch.tensor([engines[0].backbone.generation.prompt()] * len(states))
    limits = torch.tensor([12, 5, 30] * 3)
    expected, found = (engine.find(states, mask, prompt, limits) for engine in engines)
    assert [one.tokens for one in found] == [one.tokens for one in expected]
    assert [one.stopped for one in found] == [one.stopped for one in expected]
    assert len({one.tokens for one in expected}) > 2
    assert len({one.stopped for one in expected}) == 2
    for a, b in zip(found, expected, strict=True):
        assert a.stopped or a.logprob == pytest.approx(b.logprob, rel=1e-3)
        assert a.no_speech == pytest.approx(b.no_speech, rel=1e-3)


def test_a_beam_without_repeats_writes_no_pair_of_tokens_twice(engines, clips):
    states, mask = clips
    prompt = torch.tensor([engines[1].backbone.generation.prompt()] * len(states))
    limits = torch.full((len(states),), 20)
    plain, other = (engines[1].find(states, mask, prompt, limits, 2, ngram) for ngram in (0, 2))
    pairs = [[list(pairwise(one.tokens)) for one in found] for found in (plain, other)]
    assert any(len(row) > len(set(row)) for row in pairs[0])
    assert all(len(row) == len(set(row)) for row in pairs[1])


def test_words_go_through_the_whole_clip_and_those_of_clips_too_short_to_align_are_torchs(engines, clips):
    states, mask = clips
    spelt = engines[0].backbone.tokenizer.encode(" how are you all", add_special_tokens=False)
    tokens = [spelt] * 9
    seconds = [1.0] * 3 + [2.0] * 3 + [0.1] * 3
    asked = {"seconds": seconds, "language": [None] * 9, "task": "transcribe"}
    expected, found = (engine.words(states, mask, tokens, **asked) for engine in engines)
    assert [[word.word for word in row] for row in found] == [[w.word for w in row] for row in expected]
    assert found[6:] == expected[6:]
    starts = [np.array([[word.start for word in row] for row in rows[:6]]) for rows in (found, expected)]
    assert np.median(np.abs(starts[0] - starts[1])) < 0.1
    assert (starts[0].max(1) > 0.55 * np.array(seconds[:6])).all()
