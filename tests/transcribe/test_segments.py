"""Segments of a recording and the text they make."""

from types import SimpleNamespace

import numpy as np
import pytest

from speech_peft.audio.windows.chunks import Window
from speech_peft.decoders.words.decoded import Decoded
from speech_peft.transcribe.hearing import texts as reading
from speech_peft.transcribe.hearing.file import File
from speech_peft.transcribe.result import TranscribeOptions
from speech_peft.transcribe.transcriber import Transcriber


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (("Good morning.", "Hello."), "Good morning. Hello."),
        (("今天天气很好。", "我们去"), "今天天气很好。我们去"),
    ],
)
def test_segments_join_with_a_space_only_where_their_script_writes_one(texts, whole):
    file = File(0, np.zeros(0, np.float32))
    file.heard = {30.0 * at: (Decoded(text, (), 0.0, 0.0), 5.0, ()) for at, text in enumerate(texts)}
    result = Transcriber._result(SimpleNamespace(options=TranscribeOptions(), about={}), file)
    assert [segment.text for segment in result.segments] == list(texts)
    assert result.text == whole


@pytest.mark.parametrize(("pause", "splits"), [(0.5, False), (1.2, True)])
def test_a_short_window_gets_times_of_words_where_it_holds_a_pause(pause, splits):
    """Its segment would else span the pause."""
    noise = 0.1 * np.random.default_rng(0).standard_normal(32_000)
    silence = np.full(round(pause * 16_000), 1e-5)
    samples = np.concatenate([noise, silence, noise]).astype(np.float32)
    assert reading.splits(Window(0.0, samples), TranscribeOptions().split_seconds) == splits
