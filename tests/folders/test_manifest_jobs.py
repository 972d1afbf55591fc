"""A manifest as the input of a folder command: its good rows are work, its bad ones have a reason."""

import gzip
import os

import numpy as np

from speech_peft.audio import io
from speech_peft.folders import inputs

ROWS = b"""{"audio": "a.wav", "id": "one"}
not json
{"audio": "pipe.wav"}
{"audio": "a\\u0000.wav"}
{"audio": "~nosuchuser/a.wav", "id": "gone"}
{"audio": "a.wav", "id": "one"}
{"audio": "a.wav", "start": 0.1, "id": "last"}
"""


def test_bad_rows_of_a_packed_manifest_are_reported_beside_the_good_ones(tmp_path):
    io.save(tmp_path / "a.wav", np.zeros(1600, np.float32), 16_000)
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(ROWS))
    jobs = inputs.gather([tmp_path / "m.jsonl.gz"], frozenset({".wav"}))
    assert [job.relpath for job in jobs if not job.problem] == ["one", "last"]
    problems = " | ".join(job.problem for job in jobs if job.problem)
    for words in (
        "2: not a JSON",
        "regular file",
        "4: audio",
        "no such file",
        "6: id 'one' was already used",
    ):
        assert words in problems.lower().replace("json", "JSON")
    assert len({job.relpath for job in jobs}) == 7
