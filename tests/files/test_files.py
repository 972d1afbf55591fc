"""Files of others: plain values and real weights come in, all else is one line with its name."""

import json
import math
import os
import stat
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from speech_peft.errors import ConfigError
from speech_peft.files import json_text, tensors, text, yaml_text

NINES = "a0: &a0 [1]\n" + "".join(f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 15))
MERGED = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{','.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 15)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (NINES, r"more than 20,000 values, aliases resolved"),
        (MERGED, r"more than 20,000 values, aliases resolved"),
        ("a: &a [*a]", r"\*a stands inside what it names"),
        ("[" * 100_000, "more than 40 lists and mappings"),
        ("- " * 50_000, "more than 40 lists and mappings"),
        ("[" + "1," * 100_000 + "1]", "more than 20,000 values"),
        ("day: 2024-13-45", "month must be in 1..12.*quotes"),
        ("day: 2024-12-24", "'2024-12-24' is a date; expected text or a number"),
        ("x: !!python/object/apply:os.system [ls]", r"constructor for the tag .* \(line 1, column 4\)"),
        ("x: " + "9" * 5000, "4300 digits"),
        ("x: .nan", "nan is no finite number"),
        ("x: !!timestamp abc", "quotes"),
        ("1.5: x", "the key 1.5 is no text; write it in quotes"),
        ("a: b: c", r"mapping values are not allowed in this context \(line 1, column 5\)"),
        ('"\\0"', "character zero"),
    ],
)
def test_yaml_that_is_no_recipe_is_one_line_at_once(content, message):
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=rf"^recipe\.yaml: .*{message}") as caught:
        yaml_text.parse(content, "recipe.yaml")
    assert time.perf_counter() - start < 1
    assert "\n" not in str(caught.value)


def test_an_alias_used_a_few_times_is_what_it_names():
    assert yaml_text.parse("a: &a {x: 1}\nb: [*a, *a]\nc: {<<: *a, y: 2}", "r") == {
        "a": {"x": 1},
        "b": [{"x": 1}, {"x": 1}],
        "c": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": NaN}', "NaN is no number of JSON"),
        ("[-Infinity]", "-Infinity is no number"),
        ("1e999", "inf is no finite number"),
        ("[" * 100_000 + "]" * 100_000, "nested too deep"),
        ("[" * 60 + "]" * 60, "more than 40 lists and mappings"),
        ("9" * 5000, "4300 digits"),
        ("9" * 300, "997 bits is too large"),
        ('["\\ud800"]', "no valid Unicode"),
        ('{"\\u0000": 1}', "character zero"),
        ('{"x": [{"a": 1, "b": 2, "a": 3}]}', "the key 'a' stands twice"),
        ('{"a": 1,\n "b"}', r"line 2, column 5"),
        ("", "not JSON"),
    ],
)
def test_json_that_is_none_is_one_line(content, message):
    with pytest.raises(ConfigError, match=rf"^adapter\.json: .*{message}"):
        json_text.parse(content, "adapter.json")


@pytest.mark.parametrize(
    "line",
    [b'{"a": 1', b"{}x", b'{"a": NaN}', b"[]", b"1", b"", b"\xff", b"[" * 100_000, b'{"a": 1' + b"0" * 9999],
)
def test_a_line_of_a_log_that_is_torn_or_foreign_says_nothing(line):
    assert json_text.logged(line) is None


def test_a_log_keeps_names_that_are_no_utf8():
    name = os.fsdecode(b"caf\xe9.wav")
    assert json_text.logged(json.dumps({"id": name}).encode() + b"\n") == {"id": name}


def test_a_row_of_a_table_may_have_empty_cells_but_no_endless_depth():
    assert math.isnan(json_text.cells('{"snr": NaN}')["snr"])
    with pytest.raises(ValueError, match="nested too deep"):
        json_text.cells("[" * 100_000)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
@settings(max_examples=60, deadline=None)
def test_what_is_written_is_json_whatever_the_numbers(value):
    json.loads(json_text.write(value), parse_constant=pytest.fail)


@given(st.text() | st.text("[]{},:-&*!|>'\"\\#%@ \n019.eEnaN", max_size=40))
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_value_or_a_config_error(content):
    for parse in (json_text.parse, yaml_text.parse):
        try:
            parse(content, "file")
        except ConfigError as error:
            assert str(error).startswith("file: ")  # noqa: PT017 (either outcome is right)


def test_a_file_is_read_as_text_within_its_size_or_refused_by_name(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes("\ufeffé".encode())
    assert text.read(path, 100) == "é"
    with pytest.raises(ConfigError, match=r"a\.json has 5 bytes; at most 4 bytes are read"):
        text.read(path, 4)
    path.write_bytes("café".encode("cp1252"))
    with pytest.raises(ConfigError, match=r"a\.json is not UTF-8 \(byte 3 is 0xe9\)"):
        text.read(path, 100)
    with pytest.raises(ConfigError, match=r"b\.json cannot be read: No such file"):
        text.read(tmp_path / "b.json", 100)
    with pytest.raises(ConfigError, match="is no file"):
        text.read(tmp_path, 100)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigError, match="pipe is no file"):
        text.read(tmp_path / "pipe", 100)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.tensor([1.0, float("nan")]), "1 of 2 numbers that are not finite"),
        (torch.tensor([1.0, -float("inf")]), "1 of 2 numbers that are not finite"),
        (torch.tensor([1e30]), r"as large as 1e\+30"),
        (torch.tensor([1.0, float("nan")], dtype=torch.bfloat16), "not finite"),
        (torch.tensor([1j]), "is of type C64"),
        (torch.ones(1, dtype=torch.float8_e4m3fn), "is of type F8_E4M3"),
    ],
)
def test_numbers_that_no_weight_has_are_refused_by_key(tmp_path, value, message):
    save_file({"fine": torch.ones(2), "layers.0.w": value}, tmp_path / "a.safetensors")
    with pytest.raises(ConfigError, match=rf"a\.safetensors: layers\.0\.w .*{message}"):
        tensors.read(tmp_path / "a.safetensors")


def test_numbers_that_no_weight_has_are_not_written(tmp_path):
    with pytest.raises(ConfigError, match=r"is not written: w has 1 of 1"):
        tensors.write(tmp_path / "a.safetensors", {"w": torch.tensor([float("nan")])})
    assert not list(tmp_path.iterdir())


def test_a_header_is_read_without_what_it_describes(tmp_path):
    path = tmp_path / "a.safetensors"
    header = b'{"w":{"dtype":"F32","shape":[10000000000],"data_offsets":[0,40000000000]}}'
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + 40_000_000_000)
    start = time.perf_counter()
    with pytest.raises(ConfigError, match=r"has 40\.0 GB, of which .* were ever written"):
        tensors.shapes(path)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("mask", [0o022, 0o002, 0o077])
def test_tensors_are_written_with_the_rights_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        tensors.write(tmp_path / "a.safetensors", {"w": torch.ones(1)})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o666 & ~mask
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


# Names of files that are not UTF-8 pass through these as surrogates, or only we read them.
OWN_WRITERS = {"files/json_text.py", "folders/ledger.py", "audio/manifest.py"}


def test_what_others_read_is_written_and_read_through_one_door():
    """`json` writes and takes NaN, which is no JSON; `safe_load` follows bombs; `save_file` hides files."""
    import re
    from pathlib import Path

    import speech_peft

    root = Path(speech_peft.__file__).parent
    doors = {
        r"yaml\.(safe_)?load\(": {"files/yaml_text.py"},
        # converted.py reads a header alone, of a file of ours, where torch would cost seconds
        r"save_file\(|safe_open\(": {"files/tensors.py", "backbones/checkpoints/converted.py"},
        r"json\.dumps\([^)]*ensure_ascii=False": OWN_WRITERS,
        r"json\.loads?\(|JSONDecoder|from json import": {"files/json_text.py"},
    }
    for pattern, allowed in doors.items():
        users = {
            path.relative_to(root).as_posix()
            for path in root.rglob("*.py")
            if re.search(pattern, path.read_text(encoding="utf-8"))
        }
        assert users <= allowed, pattern
