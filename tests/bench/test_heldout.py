"""Which test clips an adapter has seen: by file, stretch, copy, and through the adapters it started from."""

import json
from pathlib import Path

import pytest
import yaml

from speech_peft.audio import manifest
from speech_peft.audio.rows.row import Row
from speech_peft.bench import __main__ as bench
from speech_peft.bench import heldout
from speech_peft.bench.alike import near_duplicates
from speech_peft.bench.heldout import check, overlap
from speech_peft.errors import ConfigError


def corpus(folder: Path, names="abc") -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.wav").write_bytes(name.encode() * 100)
    rows = [{"audio_filepath": f"{name}.wav", "label": "x", "part": name} for name in names]
    path = folder / "all.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def adapter(folder: Path, data: dict, **adapters: dict) -> Path:
    folder.mkdir()
    (folder / "recipe.yaml").write_text(yaml.safe_dump({"data": data, "adapters": adapters}))
    return folder


def test_stretches_of_one_recording_overlap_only_where_they_share_sound(tmp_path):
    seen = [Row("a", tmp_path / "long.wav", start=10, duration=5)]
    tests = [
        Row("before", tmp_path / "long.wav", start=5, duration=5),
        Row("inside", tmp_path / "long.wav", start=14, duration=5),
        Row("after", tmp_path / "long.wav", start=15, duration=5),
        Row("all", tmp_path / "long.wav"),
        Row("other", tmp_path / "other.wav", start=10, duration=5),
    ]
    assert [row.id for row in overlap(seen, tests)] == ["inside", "all"]


def test_a_copy_or_a_link_elsewhere_is_the_same_clip_and_another_of_its_name_is_not(tmp_path):
    corpus(tmp_path / "one")
    corpus(tmp_path / "two")
    (tmp_path / "two" / "b.wav").write_bytes(b"B" * 100)
    (tmp_path / "link.wav").symlink_to(tmp_path / "one" / "a.wav")
    seen = [Row(name, tmp_path / "one" / f"{name}.wav") for name in "abc"]
    tests = [Row(name, tmp_path / "two" / f"{name}.wav") for name in "abc"]
    tests.append(Row("link", tmp_path / "link.wav"))
    assert [row.id for row in overlap(seen, tests)] == ["a", "c", "link"]


def test_only_the_rows_that_the_recipe_chose_count(tmp_path):
    data = corpus(tmp_path / "data")
    folder = adapter(tmp_path / "pets", {"train": str(data), "train_where": {"part": ["a"]}})
    rows = {name: Row(name, tmp_path / "data" / f"{name}.wav") for name in "abc"}
    assert check(folder, [rows["b"], rows["c"]]) == "ok"
    with pytest.raises(ConfigError, match=r"trained on 1 of the 2 test rows \(first: 'a'\)"):
        check(folder, [rows["c"], rows["a"]])


def test_what_an_adapter_started_from_counts_too(tmp_path):
    data = corpus(tmp_path / "data")
    first = adapter(tmp_path / "first", {"train": str(data), "train_where": {"part": ["a"]}})
    chosen = {"train": str(data), "train_where": {"part": ["b"]}}
    second = adapter(tmp_path / "second", chosen, pets={"from": str(first)})
    assert check(second, [Row("c", tmp_path / "data" / "c.wav")]) == "ok"
    with pytest.raises(ConfigError, match=r"1 of the 1 test rows.*first/recipe.yaml"):
        check(second, [Row("a", tmp_path / "data" / "a.wav")])


@pytest.mark.parametrize("recipe", [None, "a: [", "{}", "data: 3"])
def test_a_recipe_that_says_nothing_is_unknown_not_fine(recipe, tmp_path):
    folder = tmp_path / "pets"
    folder.mkdir()
    if recipe is not None:
        (folder / "recipe.yaml").write_text(recipe)
    assert "recipe.yaml" in check(folder, [Row("a", tmp_path / "a.wav")])


@pytest.mark.parametrize(
    ("text", "alike"),
    [
        ("Weasels have eaten our phone system!", True),
        ("have weasels eaten our phone", True),  # 5 of 6
        ("weasels have eaten our bread today", False),  # 4 of 6
        ("weasels", False),
        ("", False),
    ],
)
def test_texts_that_share_four_fifths_of_their_words_are_near_duplicates(text, alike):
    seen = ["please leave a message", "weasels have eaten our phone system", "our our our"]
    assert near_duplicates(seen, ["nothing alike", text]) == ([1] if alike else [])


def test_rows_that_were_trained_on_are_refused_or_reported(tmp_path):
    rows = [
        Row("a", tmp_path / "a.wav", text="one two"),
        Row("b", tmp_path / "b.wav", text="three four five"),
    ]
    manifest.write(tmp_path / "train.jsonl", rows)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.yaml").write_text(f"data: {{train: {tmp_path}/train.jsonl}}")
    test = [Row("x", tmp_path / "a.wav"), Row("y", tmp_path / "y.wav", text="Five, four, three")]
    with pytest.raises(ConfigError, match=r"trained on 1 of the 2 test rows \(first: 'x'\)"):
        heldout.examine(tmp_path / "run", test)
    found = heldout.examine(tmp_path / "run", test, refuse=False)
    assert "trained on 1 of the 2 test rows" in found.answer
    assert found.as_config()["near_duplicates"] == 1
    assert "1 of 2 test texts are nearly training texts" in found.told(2)
    assert heldout.examine(tmp_path / "run", test[1:]).answer == "ok"


def test_the_clean_side_of_a_test_row_counts_as_heard(tmp_path):
    seen = [Row("a", tmp_path / "clean.wav")]
    noisy = Row("n", tmp_path / "noisy.wav", target_audio=tmp_path / "clean.wav")
    assert heldout.overlap(seen, [noisy, Row("o", tmp_path / "other.wav")]) == [noisy]
    assert heldout.overlap([noisy], seen) == seen


@pytest.mark.parametrize("arguments", [["asr"], ["restore"]])
def test_benchmarks_of_words_and_sound_refuse_rows_that_were_trained_on(tmp_path, capsys, arguments):
    rows = [Row("a", tmp_path / "a.wav", text="one two")]
    manifest.write(tmp_path / "train.jsonl", rows)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/recipe.yaml").write_text(f"data: {{train: {tmp_path}/train.jsonl}}")
    (tmp_path / "run/adapter.json").write_text('{"backbone": {"id": "tiny"}}')
    options = ["--data", f"{tmp_path}/train.jsonl", "--adapter", f"{tmp_path}/run", "-o", f"{tmp_path}/out"]
    assert bench.main([*arguments, *options]) == 2
    assert "trained on 1 of the 1 test rows" in capsys.readouterr().err
