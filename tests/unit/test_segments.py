"""Segments of a recording and the text they make."""

from types import SimpleNamespace

import numpy as np
import pytest

from speech_peft.decoders.whisper_text import Decoded
from speech_peft.infer.result import TranscribeOptions
from speech_peft.infer.transcriber import Transcriber, _File


@pytest.mark.parametrize(
    ("texts", "whole"),
    [
        (("Good morning.", "Hello."), "Good morning. Hello."),
        (("今天天气很好。", "我们去"), "今天天气很好。我们去"),
    ],
)
def test_segments_join_with_a_space_only_where_their_script_writes_one(texts, whole):
    file = _File(0, np.zeros(0, np.float32))
    file.heard = {30.0 * at: (Decoded(text, (), 0.0, 0.0), 5.0, ()) for at, text in enumerate(texts)}
    result = Transcriber._result(SimpleNamespace(options=TranscribeOptions(), about={}), file)
    assert [segment.text for segment in result.segments] == list(texts)
    assert result.text == whole
