"""Only an adapter folder of ours gives way; what its owner put into it stays."""

import json
from contextlib import suppress

import pytest

from speech_peft.core.saved.swap import check_replaceable, complete
from speech_peft.errors import ConfigError

CARD = {"format": 1, "method": "lora", "config": {}, "backbone": {}, "sites": []}


def test_a_file_a_link_and_a_folder_of_others_are_refused_and_untouched(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "adapter.json").write_text('{"name": "something else"}')
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    before = sorted(tmp_path.rglob("*"))
    for name, found in (("file", "is a file"), ("folder", "without an adapter"), ("link", "is a link")):
        with pytest.raises(ConfigError, match=found), complete(tmp_path / name):
            pass
    with pytest.raises(ConfigError, match="is a link"):
        check_replaceable(tmp_path / "nowhere")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_older_adapter_gives_way_and_what_was_put_beside_it_stays(tmp_path):
    final = tmp_path / "a"
    for turn in range(2):
        with complete(final) as half:
            (half / "adapter.json").write_text(json.dumps({**CARD, "turn": turn}))
            if not turn:
                (half / "head.safetensors").write_bytes(b"")
        if not turn:
            (final / "notes").mkdir()
            (final / "notes" / "mine.txt").write_text("mine")
    assert json.loads((final / "adapter.json").read_text())["turn"] == 1
    assert (final / "notes" / "mine.txt").read_text() == "mine"
    assert not (final / "head.safetensors").exists()
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_is_not_finished_never_appears(tmp_path):
    with suppress(OSError), complete(tmp_path / "a") as half:
        (half / "adapter.json").write_text("{}")
        raise OSError("full")
    assert not list(tmp_path.iterdir())
