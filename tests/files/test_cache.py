"""What is made once and found again, by several processes at a time."""

from pathlib import Path

import pytest

from speech_peft.files.cache import made_once


def test_a_folder_is_made_once(tmp_path):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "model.bin").write_bytes(b"whole")

    for _ in range(2):
        assert (made_once(tmp_path / "cache" / "one", make) / "model.bin").read_bytes() == b"whole"
    assert len(made) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["one"]


def test_what_another_process_made_meanwhile_stays(tmp_path):
    def make(folder: Path) -> None:
        (folder / "model.bin").write_bytes(b"late")
        (tmp_path / "one").mkdir()
        (tmp_path / "one" / "model.bin").write_bytes(b"first")

    assert (made_once(tmp_path / "one", make) / "model.bin").read_bytes() == b"first"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


def test_a_folder_that_cannot_be_made_leaves_nothing(tmp_path):
    def make(folder: Path) -> None:
        (folder / "model.bin").write_bytes(b"half")
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space left"):
        made_once(tmp_path / "one", make)
    assert not list(tmp_path.iterdir())
