"""A benchmark of the first rows reads the first rows, however long the manifest is."""

import json

import pytest

from speech_peft.audio.rows.listing import Listing
from speech_peft.bench import __main__ as bench
from speech_peft.errors import ConfigError
from speech_peft.metrics import slices


@pytest.mark.parametrize("command", ["asr", "classify", "restore"])
def test_limit_reads_no_more_rows_than_it_keeps(command, tmp_path, monkeypatch):
    rows = [{"id": str(n), "audio_filepath": f"{n}.wav", "text": "a", "label": "b"} for n in range(50)]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read, before = [], Listing._read

    def counted(self: Listing, record: int):
        read.append(record)
        return before(self, record)

    def stop(*_args):
        raise ConfigError("far enough")

    monkeypatch.setattr(Listing, "_read", counted)
    monkeypatch.setattr(slices, "known_columns", stop)
    arguments = [command, "--data", str(tmp_path / "m.jsonl"), "-o", str(tmp_path / "out"), "--limit", "3"]
    assert bench.main(arguments) == 2
    assert read == [0, 1, 2]
