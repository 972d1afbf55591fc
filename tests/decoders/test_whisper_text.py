"""Our reading of the stock decoder agrees with the stock decoder, whatever else is in the batch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from speech_peft.backbones.families import tiny
from speech_peft.decoders.words import rereading
from speech_peft.decoders.words.decoded import Decoded
from speech_peft.decoders.words.rereading import Clips, Evidence, _evidence, _left_out, choose, evidence
from speech_peft.decoders.words.whisper_text import SPARE_TOKENS, TOKENS_PER_SECOND, Reader, decode, greedy
from speech_peft.decoders.words.word_times import Trace, align, first_frames, words_of
from speech_peft.transcribe.segments import flags


@pytest.fixture(scope="module")
def backbone():
    # A random decoder is nearly deaf; larger weights make it listen, so that texts differ and end.
    chosen = tiny("whisper", context="fit")
    with torch.no_grad():
        for parameter in chosen.decoder.parameters():
            parameter.mul_(3.0)
    return chosen


def states_of(backbone, seconds: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    audio = torch.randn(1, round(seconds * 16_000), generator=generator)
    return backbone.encode(backbone.prepare(audio, torch.tensor([audio.shape[1]]))).states


@torch.inference_mode()
def stock(backbone, states: torch.Tensor, limit: int) -> list[int]:
    """Greedy decoding by calling the stock forward on the whole text each time, without a cache."""
    g = backbone.generation
    tokens = list(g.prompt())
    never = [*g.suppress, g.sot, g.no_timestamps, g.start_of_previous, g.no_speech]
    found: list[int] = []
    while len(found) < limit:
        hidden = backbone.decoder(torch.tensor([tokens]), encoder_hidden_states=states).last_hidden_state[
            :, -1
        ]
        scores = backbone.module.proj_out(hidden)[0]
        scores[[i for i in never if i is not None]] = -torch.inf
        scores[g.timestamp_begin :] = -torch.inf
        if not found:
            scores[list(g.begin_suppress)] = -torch.inf
        token = int(scores.argmax())
        if token == g.eot:
            break
        found.append(token)
        tokens.append(token)
    return found


def test_greedy_is_the_stock_decoders_choice_token_by_token(backbone):
    for seed in range(3):
        states = states_of(backbone, 1.0, seed)
        (row,) = greedy(backbone, states)
        assert list(row.tokens) == stock(backbone, states, TOKENS_PER_SECOND + SPARE_TOKENS)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_a_clips_text_does_not_depend_on_its_batch(backbone, beam_size):
    clips = [states_of(backbone, seconds, seed) for seed, seconds in enumerate((0.5, 1.0, 2.0, 1.5))]
    longest = max(clip.shape[1] for clip in clips)
    states = torch.cat(
        [torch.nn.functional.pad(c, (0, 0, 0, longest - c.shape[1]), value=9.0) for c in clips]
    )
    mask = torch.arange(longest)[None] < torch.tensor([[c.shape[1]] for c in clips])
    together = decode(backbone, states, mask, beam_size=beam_size)
    alone = [decode(backbone, clip, beam_size=beam_size)[0] for clip in clips]
    assert [row.tokens for row in together] == [row.tokens for row in alone]
    torch.testing.assert_close(
        [row.avg_logprob for row in together], [row.avg_logprob for row in alone], rtol=1e-4, atol=1e-4
    )


def test_text_is_bounded_by_the_length_of_the_audio(backbone):
    for row in greedy(backbone, states_of(backbone, 0.5, 0), seconds=[0.5]):
        assert len(row.tokens) <= TOKENS_PER_SECOND * 0.5 + SPARE_TOKENS
        assert row.stopped == (len(row.tokens) == TOKENS_PER_SECOND * 0.5 + SPARE_TOKENS)


def test_a_wide_beam_finds_nothing_less_likely_than_greedy(backbone):
    clips = torch.cat([states_of(backbone, 1.0, seed) for seed in range(4)])
    for narrow, wide in zip(greedy(backbone, clips), decode(backbone, clips, beam_size=4), strict=True):
        if not narrow.stopped and not wide.stopped:
            assert wide.avg_logprob >= narrow.avg_logprob - 1e-4


def test_words_are_in_order_inside_the_window(backbone):
    states = states_of(backbone, 2.0, 0)
    (row,) = greedy(backbone, states)
    (words,) = align(
        backbone, states, torch.ones(states.shape[:2], dtype=torch.bool), [row.tokens], seconds=[2.0]
    )
    assert "".join(w.word for w in words).split() == row.text.split()
    edges = [edge for word in words for edge in (word.start, word.end)]
    assert edges == sorted(edges)
    assert 0 <= edges[0] <= edges[-1] <= 2.0


def test_aligning_leaves_no_hook_behind(backbone):
    states = states_of(backbone, 1.0, 0)
    align(backbone, states, torch.ones(states.shape[:2], dtype=torch.bool), [(70, 71)], seconds=[1.0])
    assert not any(module._forward_hooks for module in backbone.module.modules())


def test_the_path_follows_a_clear_diagonal():
    cost = np.ones((4, 12), np.float32)
    for row in range(4):
        cost[row, 3 * row : 3 * row + 3] = 0
    assert first_frames(cost).tolist() == [0, 3, 6, 9]


def test_words_keep_their_punctuation_and_split_characters_stay_whole():
    tokenizer = tiny("whisper").tokenizer
    tokens = tokenizer.encode(" Über uns, ja!", add_special_tokens=False)
    assert [word for word, _ in words_of(tokenizer, tokens)] == [" Über", " uns,", " ja!"]
    assert sum(count for _, count in words_of(tokenizer, tokens)) == len(tokens)


def test_a_second_reading_stays_only_where_it_explains_the_audio_better(backbone):
    states = torch.cat([states_of(backbone, 1.0, seed) for seed in range(3)])
    plain, again = greedy(backbone, states), decode(backbone, states)
    assert any(row.loops for row in plain)
    clips = Clips(
        backbone, states, None, torch.zeros(3, 1, dtype=torch.long), [1.0] * 3, [None] * 3, torch.arange(3)
    )
    for before, after, old, new in zip(
        plain, again, evidence(clips, plain), evidence(clips, again), strict=True
    ):
        assert after.looped == before.loops
        if before.loops:
            assert after.tokens == before.tokens or choose([old, new]) == 1
        else:
            assert after == before


def _heard(frames: int, tokens: int, last: int, crammed: int = 0) -> Trace:
    """`tokens` that follow time up to frame `last`, then `crammed` that have none of their own."""
    starts = np.append(np.linspace(0, last, tokens, endpoint=False).round(), [float(last)] * (crammed + 1))
    shares = np.zeros((tokens + crammed + 1, frames), np.float32)
    for row, at in enumerate(starts[:-1]):
        end = int(starts[row + 1]) if row < tokens else int(at) + 1
        shares[row, int(at) : min(frames, end)] = 1.0
    return Trace(starts, shares, np.ones(len(starts), np.float32))


@pytest.mark.parametrize("times", range(2, 13))
def test_what_was_said_again_and_again_is_not_taken_for_a_loop(times):
    """Readings of `times` words of 0.4 s; a beam without repeats hears two of them."""
    frames = 20 * times
    said = _evidence(_heard(frames, 2 * times, frames))
    cut_short = _evidence(_heard(frames, 4, 40))
    assert choose([said, cut_short]) == 0
    assert (times > 2) == _left_out(said, cut_short)


@pytest.mark.parametrize("words", [1, 5, 12])
def test_a_loop_is_replaced_by_a_reading_that_covers_as_much(words):
    frames = 15 * words
    loop = _evidence(_heard(frames, words, frames - 2, crammed=5 * words + 5))
    whole = _evidence(_heard(frames, words, frames - 2))
    assert choose([loop, whole]) == 1
    assert choose([whole, loop]) == 0
    assert choose([whole, whole]) == 0


def test_the_reading_that_was_asked_last_is_taken_where_it_covers_more(monkeypatch):
    """The beam without repeats leaves speech out, so one that may repeat is asked, and only for that clip."""
    whole, half = np.ones(10, bool), np.arange(10) < 5
    proofs = {"loop": Evidence(whole, 0.8), "short": Evidence(half, 0.0), "right": Evidence(whole, 0.1)}
    monkeypatch.setattr(rereading, "evidence", lambda clips, found: [proofs[one.text] for one in found])
    asked = []

    def again(chosen, ngram):
        asked.append((list(chosen), ngram))
        texts = {0: "right"} if ngram == 0 else {0: "short", 1: "right"}
        return [Decoded(texts[i], (), 0.0, 0.0) for i in chosen]

    prompt = torch.zeros(2, 1, dtype=torch.long)
    clips = Clips(None, torch.zeros(2, 1, 1), None, prompt, [1, 1], [None] * 2, torch.arange(2))
    found = rereading.best(clips, [Decoded("loop", (), 0.0, 0.0)] * 2, again, 3)
    assert [one.text for one in found] == ["right", "right"]
    assert asked == [([0, 1], 3), ([0], 0)]


def test_the_doubt_is_flagged_whichever_reading_stays():
    calm = Decoded("Hello.", (), -0.1, 0.0)
    assert "loop" not in flags(calm)
    assert "loop" in flags(replace(calm, looped=True))


def test_a_text_loops_when_it_compresses_like_one():
    assert Decoded("You are now unmuted. " * 4 + "You are", (), 0.0, 0.0).loops
    assert Decoded("Hello.", (), 0.0, 0.0, stopped=True).loops
    assert not Decoded("", (), 0.0, 0.0).loops
    assert not Decoded(
        "Press 1 to mute or unmute yourself, 4 or 6 to decrease or increase.", (), 0.0, 0.0
    ).loops


def test_word_probabilities_are_read_clip_by_clip(backbone, monkeypatch):
    """The scores of every token of every clip at once were most of the memory of word times."""
    sizes = []
    plain = Reader.scores

    def watched(reader, hidden, bias):
        found = plain(reader, hidden, bias)
        sizes.append(found.numel())
        return found

    monkeypatch.setattr(Reader, "scores", watched)
    states = torch.cat([states_of(backbone, 1.0, seed) for seed in range(4)])
    mask = torch.ones(states.shape[:2], dtype=torch.bool)
    align(backbone, states, mask, [(70, 71, 72, 73)] * 4, seconds=[1.0] * 4)
    assert max(sizes) <= 5 * backbone.module.config.vocab_size
