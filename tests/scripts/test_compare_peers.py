"""What ours and its peers are given to transcribe is the same, whole, and its lengths are said."""

import importlib
from pathlib import Path

import numpy as np
import pytest

from speech_peft.audio import io
from speech_peft.audio.manifest import Row

SCRIPTS = Path(__file__).parents[2] / "scripts"
RATE = 16_000


@pytest.fixture
def peers(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("compare_peers")


@pytest.fixture
def rows(tmp_path) -> list[Row]:
    found = []
    for number, seconds in enumerate((1, 2, 4)):
        path = tmp_path / f"{number}.wav"
        io.save(path, np.full(seconds * RATE, 0.1, np.float32), RATE)
        found.append(Row(str(number), path, text=f"word{number}"))
    return found


class Peer:
    """Answers as a worker does."""

    def __init__(self, seconds: float, wrong: int = 0):
        self.seconds, self.wrong, self.asked = seconds, wrong, []

    def ask(self, files):
        self.asked.append(files)
        texts = [f"word{Path(file).stem}" for file in files]
        return {
            "seconds": self.seconds,
            "cpu_seconds": 2 * self.seconds,
            "texts": ["no"] * self.wrong + texts[self.wrong :],
        }


def test_the_long_recording_holds_prompts_whole_with_pauses_and_their_texts(peers, rows, tmp_path):
    long = peers.joined(rows, 0.5, tmp_path / "long.wav")
    samples = io.load(tmp_path / "long.wav", RATE).samples
    assert long.seconds[0] >= 30
    assert len(samples) / RATE == pytest.approx(long.seconds[0])
    words = long.texts[0].split()
    assert set(words) == {"word0", "word1", "word2"}
    spoken = sum((1, 2, 4)[int(word[-1])] for word in words)
    assert (samples > 0.05).sum() == spoken * RATE
    pauses = (len(samples) / RATE - spoken) / len(words)
    assert peers.PAUSES[0] < pauses < peers.PAUSES[1]


def test_all_sides_hear_the_same_files_and_lengths_are_stated(peers, rows):
    sides = {"ours ct2": Peer(1.0), "slow": Peer(9.0), "fast": Peer(3.0), "hasty": Peer(2.0, wrong=1)}
    found = peers.compared(sides, peers.prompts(rows), rounds=2)
    assert len({str(side.asked) for side in sides.values()}) == 1
    assert all(len(side.asked) == 3 for side in sides.values())
    assert (found["n"], found["median s"], found["longest s"], found["total s"]) == (3, 2, 4, 7)
    assert (found["best peer"], found["ours ct2 by fast: speed-up"]) == ("fast", 3.0)
    assert found["slow: audio s/s"] == pytest.approx(7 / 9)
    assert found["slow: audio s/CPU s"] == pytest.approx(7 / 18)
    assert (found["slow: wer"], found["hasty: wer"]) == (0, pytest.approx(1 / 3))


def test_a_long_recording_in_order_repeats_the_clips_that_fit(peers, rows, tmp_path):
    long = peers.joined(peers.fitting(rows, 1, 1.5, 10.0), 0.5, tmp_path / "long.wav", shuffled=False)
    words = long.texts[0].split()
    assert words == (["word1", "word2"] * len(words))[: len(words)]
    assert peers.fitting(rows, 2, 0.0, 1e9) == []
