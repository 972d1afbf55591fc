"""The voices of babble are other people's: a clip is never masked by itself."""

import numpy as np
import pytest

from speech_peft.audio import io
from speech_peft.audio.degradations.steps import Babble
from speech_peft.audio.degrade import Degrader
from speech_peft.audio.manifest import Row
from speech_peft.errors import ConfigError
from speech_peft.train.data.clips import Clips


def clips(folder, count):
    rows = [Row(str(number), folder / f"{number}.wav") for number in range(count)]
    for number, row in enumerate(rows):
        io.save(row.audio, np.full(800, 0.1 * (number + 1), np.float32), 16_000, "FLOAT")
    return Clips(rows, 16_000, Degrader((Babble(),)))


def test_babble_draws_every_utterance_but_the_clips_own(tmp_path):
    made = clips(tmp_path, 3)
    generator = np.random.default_rng(0)
    drawn = {round(float(made._other(1, generator)[0]), 1) for _ in range(50)}
    assert drawn == {0.1, 0.3}


def test_babble_over_a_single_utterance_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="the manifest has only one"):
        clips(tmp_path, 1)[0, 0]
