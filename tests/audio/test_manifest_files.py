"""Manifests as people have them: read, or refused with file and row; however long, read as they are used."""

import gzip
import json
import math
import os
import tracemalloc

import pytest

from speech_peft.audio import manifest
from speech_peft.audio.manifest import Row
from speech_peft.audio.rows.records import LONGEST
from speech_peft.errors import ConfigError


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


GOOD = {"audio_filepath": "good.wav", "text": "good"}
TEXT = "He said “please”\n".encode("cp1252")
ODD = {
    "nan.jsonl": (lines(GOOD, {"audio_filepath": "a.wav", "text": math.nan}), ":2: text is nan"),
    "no_words.jsonl": (lines(GOOD, {"audio_filepath": "a.wav", "text": {"a": 1}}), ":2: text is .* expected"),
    "true.jsonl": (lines(GOOD, {"audio_filepath": "a.wav", "text": True}), ":2: text is True"),
    "cp1252.csv": (b"audio,text\ngood.wav,good\na.wav," + TEXT, ":3: .*UTF-8 .*0x93.*CP1252"),
    "cp1252.jsonl": (lines(GOOD) + b'{"audio_filepath": "a.wav", "text": "\x93"}\n', ":2: .*UTF-8 .*0x93"),
    "header.csv": ("audio,größe\na.wav,1\n".encode("cp1252"), ":1: .*UTF-8 .*0xf6"),
    "utf16.csv": ("audio,text\na.wav,x\n".encode("utf-16"), ":1: is UTF-16"),
    "nul.jsonl": (lines(GOOD, {"audio_filepath": "a\0.wav"}), r":2: audio is 'a\\x00.wav'; .* no NUL"),
    "nul_text.jsonl": (lines(GOOD, {"audio_filepath": "a.wav", "text": "a\0"}), ":2: text is .* no NUL"),
    "nul.csv": (b"audio,text\ngood.wav,good\na.wav,a\0\n", ":3: text is .* no NUL"),
    "half.jsonl": (
        lines(GOOD, {"audio_filepath": "a.wav", "text": "\ud800"}),
        ":2: text is .*half of a char",
    ),
    "half_path.jsonl": (lines(GOOD, {"audio_filepath": "\ud800.wav"}), ":2: audio is .* no file can"),
    "half_id.jsonl": (lines(GOOD, {"audio_filepath": "a.wav", "id": "\ud800"}), ":2: id is .* no file can"),
    "long.jsonl": (lines(GOOD) + b'{"audio": "a", "duration": 1' + b"0" * 400 + b"}\n", ":2: duration is 10"),
    "longer.jsonl": (lines(GOOD) + b'{"audio": "a", "duration": 1' + b"0" * 9999 + b"}\n", ":2: not a JSON"),
    "deep.jsonl": (lines(GOOD) + b'{"audio": ' + b"[" * 100_000 + b"\n", ":2: not a JSON .*too deep"),
    "quote.csv": (b'audio,text\ngood.wav,good\na.wav,"' + b"x\n" * 99_999, ":3: .*quote that is not closed"),
    "zero.jsonl": (lines(GOOD, {"audio_filepath": "a.wav", "duration": 0.0}), ":2: duration is 0.0"),
    "nan_time.jsonl": (lines(GOOD, {"audio_filepath": "a.wav", "offset": math.nan}), ":2: start is nan"),
    "same.jsonl": (lines({**GOOD, "id": "same"}, {**GOOD, "id": "same"}), ":2: id 'same' was .* line 1"),
    "array.json": (b"[" + lines(GOOD).strip() + b"]", ":1: expected an object"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_wrong_is_one_line_that_names_file_and_row(tmp_path, name):
    content, message = ODD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=f"{name}{message}") as raised:
        manifest.read(tmp_path / name)
    assert len(str(raised.value)) < 400
    str(raised.value).encode()  # can be shown on any terminal


@pytest.mark.parametrize("name", [name for name in ODD if ":2:" in ODD[name][1] and "quote" not in name])
def test_one_bad_row_leaves_the_others(tmp_path, name):
    content, _ = ODD[name]
    (tmp_path / name).write_bytes(content + lines({"audio_filepath": "last.wav"}))
    found = list(manifest.listed(tmp_path / name, broken="kept").each())
    assert [row.audio.name for row in found if isinstance(row, Row)] == ["good.wav", "last.wav"]
    assert [row for row in found if isinstance(row, str)]
    assert name in found[1]


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        ("bom_crlf.csv", '\ufeffaudio,text\r\n"a.wav","hi"\r\n"b.wav","ho"\r\n', ["hi", "ho"]),
        ("quotes.csv", 'audio,text\na.wav,"""hi"", a\nb"\n\nb.wav,ho | x;\n', ['"hi", a\nb', "ho | x;"]),
        ("semicolon.csv", 'audio;text\na.wav;"a, b; c"\n', ["a, b; c"]),
        ("mac.csv", "audio,text\ra.wav,hi\rb.wav,ho\r", ["hi", "ho"]),
        ("null.jsonl", '{"audio": "a.wav", "text": "hi", "offset": null, "duration": null}\n', ["hi"]),
        ("bom.jsonl", '\ufeff{"audio": "a.wav", "text": "hi"}\n\n{"audio": "b.wav", "text": 5}', ["hi", "5"]),
        ("nan.jsonl", '{"audio": "a.wav", "text": "nan", "snr": NaN}\n', ["nan"]),
    ],
)
def test_what_can_be_read_is_read_whole_and_row_by_row(tmp_path, name, content, texts):
    (tmp_path / name).write_bytes(content.encode())
    assert [row.text for row in manifest.read(tmp_path / name)] == texts
    rows = manifest.listed(tmp_path / name)
    assert [rows[place].text for place in reversed(range(len(rows)))] == texts[::-1]
    assert all(row.extra.get("snr") is None for row in rows)


def test_a_user_who_is_not_there_is_a_name_like_any_other(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(lines({"audio_filepath": "~nosuchuser/a.wav"}))
    (row,) = manifest.read(tmp_path / "m.jsonl")
    assert row.audio == tmp_path / "~nosuchuser/a.wav"


def test_name_that_is_not_utf8_is_written_and_read(tmp_path):
    audio = tmp_path / os.fsdecode(b"caf\xe9.wav")
    rows = [Row(os.fsdecode(b"caf\xe9"), audio, text="é"), Row("b", tmp_path / "b.wav", text="é")]
    manifest.write(tmp_path / "m.jsonl", rows)
    assert manifest.read(tmp_path / "m.jsonl") == rows
    assert "é" in (tmp_path / "m.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "content", [b"\x1f\x8b\x08\0 no gzip", gzip.compress(lines(GOOD) * 99)[:-9]], ids=["none", "cut"]
)
def test_damaged_gzip_is_an_error_of_the_file(tmp_path, content):
    (tmp_path / "m.jsonl.gz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"m\.jsonl\.gz: cannot be read"):
        manifest.read(tmp_path / "m.jsonl.gz")


def test_pipe_for_a_manifest_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "m.jsonl")
    with pytest.raises(ConfigError, match="is not a regular file"):
        manifest.read(tmp_path / "m.jsonl")


def test_line_without_end_is_refused_before_it_fills_the_memory(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b" " * (LONGEST + 2))
    with pytest.raises(ConfigError, match=r":1: a line of more than 16 MB"):
        manifest.read(tmp_path / "m.jsonl")


def test_manifest_replaced_while_it_is_read_gives_the_rows_it_had(tmp_path):
    manifest.write(tmp_path / "m.jsonl", [Row(str(i), tmp_path / "a.wav") for i in range(3)])
    rows = manifest.listed(tmp_path / "m.jsonl")
    manifest.write(tmp_path / "m.jsonl", [Row("other", tmp_path / "b.wav")])
    assert [row.id for row in rows] == ["0", "1", "2"]


@pytest.mark.parametrize("name", ["m.jsonl", "m.jsonl.gz"])
def test_listing_holds_numbers_and_not_rows(tmp_path, name):
    count = 3000
    rows = [Row(f"utterance {i}", tmp_path / "a.wav", duration=1.0, text="words " * 40) for i in range(count)]
    manifest.write(tmp_path / name, rows)
    manifest.listed(tmp_path / name)  # what the first one imports and caches does not count
    tracemalloc.start()
    listed = manifest.listed(tmp_path / name)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 60 * count + 20_000
    assert listed[count - 1] == rows[-1]
    assert listed[-2:][0] == rows[-2]
    assert list(listed.take([5, 2])) == [rows[5], rows[2]]
    assert listed.seconds.tolist() == [1.0] * count
    assert listed.spoken.all()


def test_short_way_to_an_id_gives_the_id_of_the_row(tmp_path):
    paths = [
        "a.wav",
        "x/a.wav",
        "x.y/a.b.wav",
        "./a.wav",
        "x//b.wav",
        "../c.wav",
        ".d.wav",
        "e",
        "f.",
        "x/.wav",
    ]
    paths += [f"{tmp_path}/in/g.wav", "/elsewhere/h.wav", "~/i.wav", "ß.wav", "a.flac"]
    records = [{"audio": path, "offset": float(i)} for i, path in enumerate([*paths, *paths])]
    (tmp_path / "m.jsonl").write_bytes(lines(*records))
    columns = manifest.listed(tmp_path / "m.jsonl").columns
    for record in records:
        row, _ = columns.row("", record)
        brief = columns.brief(lambda: "", record, clean=True)
        assert (brief.made, brief.full) == (row.id, manifest.suffixed(row))
