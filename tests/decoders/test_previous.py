"""The text that Whisper is told came before: its tokens, and that the decoder reads it as stock code does."""

import pytest
import torch

from speech_peft.backbones.families import tiny
from speech_peft.decoders.words.previous import previous
from speech_peft.decoders.words.whisper_text import decode


@pytest.fixture(scope="module")
def backbone():
    chosen = tiny("whisper", context="fit")
    with torch.no_grad():
        for parameter in chosen.decoder.parameters():
            parameter.mul_(3.0)  # a random decoder is nearly deaf
    return chosen


def states_of(backbone, seconds: float, seed: int = 0) -> torch.Tensor:
    audio = torch.randn(1, round(seconds * 16_000), generator=torch.Generator().manual_seed(seed))
    return backbone.encode(backbone.prepare(audio, torch.tensor([audio.shape[1]]))).states


def text_of(backbone, tokens) -> str:
    return backbone.tokenizer.decode(tokens[1:])


def test_a_prompt_is_its_text_behind_the_token_for_it(backbone):
    found = previous(backbone, "said  before\n", "Asterisk")
    assert found[0] == backbone.generation.start_of_previous
    assert text_of(backbone, found) == " Asterisk said before"


@pytest.mark.parametrize("text", [None, "", " \n "])
def test_no_text_is_no_prompt(backbone, text):
    assert previous(backbone, text, text) == ()


def test_at_most_half_the_context_is_told_the_first_hotwords_and_the_last_of_the_prompt(backbone):
    half = backbone.module.config.max_target_positions // 2
    for prompt, hotwords in (
        ("p" * 999 + "END", None),
        ("p" * 999 + "END", "START"),
        ("p", "START" + "h" * 999),
    ):
        found = previous(backbone, prompt, hotwords)
        assert len(found) == half
        told = text_of(backbone, found)
        assert told.startswith(" START") == (hotwords is not None)
        assert told.endswith("END") == (hotwords in (None, "START"))


def test_special_tokens_in_a_prompt_are_left_out(backbone):
    found = previous(backbone, "a<|endoftext|>b<|startoftranscript|>")
    assert all(token < backbone.generation.eot for token in found[1:])


@torch.inference_mode()
def stock(backbone, states: torch.Tensor, before: tuple[int, ...], limit: int) -> list[int]:
    """Greedy decoding behind a prompt by the stock forward on the whole text each time."""
    g = backbone.generation
    tokens, found = [*before, *g.prompt()], []
    while len(found) < limit:
        hidden = backbone.decoder(torch.tensor([tokens]), encoder_hidden_states=states).last_hidden_state
        scores = backbone.module.proj_out(hidden[:, -1])[0]
        never = (*g.suppress, g.sot, g.no_timestamps, g.start_of_previous, g.no_speech)
        scores[[token for token in never if token is not None]] = -torch.inf
        scores[g.timestamp_begin :] = -torch.inf
        if not found:
            scores[list(g.begin_suppress)] = -torch.inf
        if (token := int(scores.argmax())) == g.eot:
            break
        found.append(token)
        tokens.append(token)
    return found


def test_behind_a_prompt_the_stock_decoder_chooses_the_same_tokens(backbone):
    before = previous(backbone, "abc")
    changed = []
    for seed in range(3):
        states = states_of(backbone, 1.0, seed)
        (with_it,) = decode(backbone, states, before=before, retry=False)
        (without,) = decode(backbone, states, retry=False)
        assert list(with_it.tokens) == stock(backbone, states, before, 22)
        changed.append(with_it.tokens != without.tokens)
    assert any(changed)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_silence_is_read_off_where_the_transcript_starts_not_where_the_prompt_does(backbone, beam_size):
    states, seen = states_of(backbone, 1.0), []
    from speech_peft.decoders.words.whisper_reader import Reader

    before = previous(backbone, "abc")
    (one,) = decode(backbone, states, before=before, beam_size=beam_size, retry=False)
    reader = Reader(backbone, states, None)
    with torch.inference_mode():
        hidden = reader.read(torch.tensor([[*before, *backbone.generation.prompt()]]))
        seen = reader.no_speech(hidden[:, len(before)])
    assert one.no_speech_prob == pytest.approx(seen[0], rel=1e-4)
