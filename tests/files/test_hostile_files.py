"""Hostile cards, recipes, grids, manifests, ledgers and predictions: an error for the user, at once, or none.

Every case is a valid file with one thing in it made hostile. What is not refused must work; what is refused
is an error written for the user; nothing is written anywhere.
"""

import copy
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from speech_peft.audio import manifest
from speech_peft.bench.gates import limits as gate
from speech_peft.core.saved import save
from speech_peft.errors import ConfigError, SpeechPeftError
from speech_peft.folders.ledger import Ledger
from speech_peft.predictions import classes as class_predictions
from speech_peft.predictions import restorations
from speech_peft.predictions import words as predictions
from speech_peft.recipe import config
from speech_peft.sweep import grid
from speech_peft.sweep.results import Results
from tests import toy

# What people, programs and attackers put where something else was meant.
HOSTILE: list[Any] = [
    None, True, False, -1, 0, 2**63, 2**64 + 1, 10**400, -0.0, 1e308, float("nan"), float("inf"), "", " ",
    ".", "..", "../..", "/", "/etc/passwd", "~nosuchuser", "~", "nan", "\0", "a\0b", "\ud800", "\u202e",
    "é" * 300,
    "x" * 5000, "*" * 200, "[" * 200, "**/" * 100, "pkg:os.path/x", "-o", "\x1b[2J", [], {}, [[]], [{}],
    {"": None},
    {"x": {"y": {}}}, ["a"] * 2000, list(range(2000)), "lora\n", "???", {"from": ".."}, {"method": ["lora"]},
    {"method": {"a": 1}}, {"name": []}, {"name": None}, "1e999", "2024-13-45", "0x", {"__class__": "x"},
]  # fmt: skip
DEEP = "[" * 50_000


def paths(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places in a tree, outermost first."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [at, *(path for key, value in items for path in paths(value, (*at, key)))]


def with_at(tree: Any, path: tuple[Any, ...], change: Callable[[Any, Any], None]) -> Any:
    if not path:
        return None
    tree = copy.deepcopy(tree)
    here = tree
    for step in path[:-1]:
        here = here[step]
    change(here, path[-1])
    return tree


def hostile(tree: Any) -> st.SearchStrategy[Any]:
    """The tree with one or two of its values replaced, removed or joined by others."""
    places = paths(tree)[1:]
    values = st.sampled_from(HOSTILE) | st.text(max_size=8) | st.integers() | st.floats()

    @st.composite
    def made(draw: Any) -> Any:
        changed = tree
        for _ in range(draw(st.integers(1, 2))):
            path, value = draw(st.sampled_from(places)), draw(values)
            how = draw(st.sampled_from(["set", "set", "set", "drop", "add"]))

            def change(here: Any, step: Any, how: str = how, value: Any = value) -> None:
                if how == "drop":
                    del here[step]
                elif how == "add" and isinstance(here, dict):
                    here[str(value)[:50]] = value
                else:
                    here[step] = value

            try:
                changed = with_at(changed, path, change)
            except (KeyError, IndexError, TypeError):
                continue  # what the first change replaced has no such place
        return changed

    return made()


LIMITS = settings(
    max_examples=60,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def refused_or_done(work: Callable[[], Any]) -> None:
    """Anything but an error written for the user is a bug of ours, and so is a long time."""
    start = time.process_time()
    try:
        work()
    except SpeechPeftError as error:
        assert str(error).strip()  # noqa: PT017 (either outcome is right)
    assert time.process_time() - start < 5


def as_text(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Whatever a file asks for, reading it makes no file beside what the test itself wrote."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    assert not list((tmp_path / "here").iterdir())


# ---- adapter cards ---------------------------------------------------------------------------------------

CARD: dict[str, Any] = {
    "format": 2,
    "method": "lora",
    "config": {"sites": ["*.attn.q"], "rank": 4, "alpha": 8.0, "dropout": 0.0, "top": None},
    "backbone": {"name": "toy", "id": "tests/toy", "dim": 16, "layers": 2, "options": {"context": "fit"}},
    "sites": ["layers.0.attn.q", "layers.1.attn.q"],
    "needs": [],
    "head_config": {"ctc": {"characters": "ab"}},
    "together": {"a": ".", "b": "../b"},
    "library": "0.1.0",
}


@given(card=hostile(CARD) | st.sampled_from(HOSTILE))
@LIMITS
def test_a_hostile_card_is_read_or_refused(tmp_path: Path, card: Any):
    from speech_peft.core.model import AdaptedModel
    from speech_peft.opening.companions import with_companions

    (tmp_path / "adapter.json").write_bytes(as_text(card))
    (tmp_path / "adapter.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")

    def opened() -> None:
        saved = save.read(tmp_path)
        with_companions(saved, offline=True)
        saved.check_backbone(toy.CARD)
        if getattr(saved.method, "rank", 0) < 1000:  # or the toy itself would be gigabytes
            model = AdaptedModel(toy.toy(), toy.sites(), {"a": saved.pinned})
            saved.load_into(model, "a")

    refused_or_done(opened)


# ---- recipes and grids -----------------------------------------------------------------------------------

RECIPE: dict[str, Any] = {
    "seed": 0,
    "out": "runs/x",
    "backbone": {"name": "whisper", "weights": "pkg:a/b", "context": "fit"},
    "adapters": {"a": {"method": "lora", "rank": 4, "sites": ["*.attn.q"]}, "b": {"from": "runs/b"}},
    "task": {"name": "asr", "decoder": "whisper"},
    "data": {"train": "/dev/null", "valid": None, "degrade": [{"noise": {"snr": [0, 10]}}], "cache": None},
    "optim": {"lr": 1e-3},
    "trainer": {"max_steps": 3},
}
STAGED: dict[str, Any] = {**RECIPE, "stages": {"one": {"task": {"name": "asr"}}, "two": {"seed": 1}}}
RESTORE: dict[str, Any] = {
    **RECIPE,
    "task": {"name": "restore", "decoder": {"name": "istft", "width": 8}, "clean": None},
}


@given(recipe=hostile(RECIPE) | hostile(STAGED) | hostile(RESTORE) | st.sampled_from(HOSTILE))
@LIMITS
def test_a_hostile_recipe_is_read_or_refused(tmp_path: Path, recipe: Any):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(as_text(recipe))  # JSON is YAML

    def read() -> None:
        for one in config.read_stages(str(path)).values():
            config.methods_of(one)
            config.check_decoder(one)
            config.degrader_of(one)
            config.dump(one)

    refused_or_done(read)


KEYS = [
    "seed",
    "adapters.a.rank",
    "adapters.a.sites.0",
    "stages.one.seed",
    "a..b",
    "",
    ".",
    "a" + ".a" * 5000,
]


@given(key=st.sampled_from(KEYS) | st.text(max_size=10), value=st.sampled_from(HOSTILE))
@LIMITS
def test_a_hostile_override_is_read_or_refused(tmp_path: Path, key: str, value: Any):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(STAGED))
    refused_or_done(lambda: config.read_stages(str(path), [f"{key}={value}"]))


GRID: dict[str, Any] = {"methods": {"lora": {"rank": 4}, "none": {}}, "seeds": [0, 1], "folds": [1]}


@given(tree=hostile(GRID) | st.sampled_from(HOSTILE))
@LIMITS
def test_a_hostile_grid_is_read_or_refused(tmp_path: Path, tree: Any):
    path = tmp_path / "grid.yaml"
    path.write_bytes(as_text(tree))
    refused_or_done(lambda: grid.read(path))


# ---- rows ------------------------------------------------------------------------------------------------

ROW: dict[str, Any] = {
    "id": "a",
    "audio_filepath": "a.wav",
    "offset": 0.5,
    "duration": 1.0,
    "text": "hi",
    "x": 1,
}


@given(rows=st.lists(hostile(ROW) | st.sampled_from(HOSTILE), min_size=1, max_size=3))
@LIMITS
def test_a_hostile_manifest_is_read_or_refused(tmp_path: Path, rows: list[Any]):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join(map(as_text, rows)))
    refused_or_done(lambda: list(manifest.read(path)))


ENTRY: dict[str, Any] = {
    "id": "a",
    "audio": "a.wav",
    "status": "ok",
    "fingerprint": "1:2",
    "settings": "abc",
    "outputs": {"a.txt": 3},
    "audio_seconds": 1.0,
}


@given(rows=st.lists(hostile(ENTRY) | st.sampled_from(HOSTILE), min_size=1, max_size=3))
@LIMITS
def test_a_hostile_ledger_is_a_ledger_with_less_in_it(tmp_path: Path, rows: list[Any]):
    path = tmp_path / "out" / ".speech_peft" / "ledger.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(map(as_text, rows)))
    ledger = Ledger(tmp_path / "out", "transcribe")
    for id in ("a", "b"):
        ledger.why_not_done(id, "1:2", "abc", "a.txt")
        ledger.in_the_way("a.txt", id, tmp_path / "a.wav")


PREDICTED: dict[str, Any] = {"id": "a", "text": "hi", "pred_text": "ho", "duration": 1.0, "lang": "en"}
CLASSED: dict[str, Any] = {"id": "a", "label": "x", "probabilities": {"x": 0.9, "y": 0.1}, "end": 1.0}
RESTORED = restorations.Restoration(
    "a", "b.wav", "a.wav", text="hi", pred_text="ho", words={"hits": 1}, figures={"si_sdr": 1.5}
).as_row()
SCORES: dict[str, Any] = {"task": "asr", "runs": {"base": {"wer": {"rate": 0.1}, "rtfx": 1.0}}}
CELL: dict[str, Any] = {"key": "a", "error": None, "scores": {"wer": 0.5}}


@given(rows=st.lists(hostile(PREDICTED) | st.sampled_from(HOSTILE), min_size=1, max_size=3))
@LIMITS
def test_hostile_predictions_are_read_or_refused(tmp_path: Path, rows: list[Any]):
    path = tmp_path / "preds.jsonl"
    path.write_bytes(b"\n".join(map(as_text, rows)))
    refused_or_done(lambda: predictions.read(path))


@given(rows=st.lists(hostile(CLASSED) | st.sampled_from(HOSTILE), min_size=1, max_size=3))
@LIMITS
def test_hostile_predictions_of_classes_are_read_or_refused(tmp_path: Path, rows: list[Any]):
    path = tmp_path / "preds.jsonl"
    path.write_bytes(b"\n".join(map(as_text, rows)))
    refused_or_done(lambda: (class_predictions.is_classification(path), class_predictions.read(path)))


@given(rows=st.lists(hostile(RESTORED) | st.sampled_from(HOSTILE), min_size=1, max_size=3))
@LIMITS
def test_hostile_predictions_of_restoration_are_read_or_refused(tmp_path: Path, rows: list[Any]):
    path = tmp_path / "preds.jsonl"
    path.write_bytes(b"\n".join(map(as_text, rows)))
    refused_or_done(lambda: (restorations.is_restoration(path), restorations.read(path)))


@given(rows=st.lists(hostile(CELL) | st.sampled_from(HOSTILE), min_size=1, max_size=3))
@LIMITS
def test_hostile_results_of_a_sweep_are_results_with_less_in_them(tmp_path: Path, rows: list[Any]):
    results = Results(tmp_path)
    results.path.write_bytes(b"\n".join(map(as_text, rows)))
    Results(tmp_path).settled("a")


def test_predictions_name_the_file_and_the_line_whatever_their_task(tmp_path: Path):
    path = tmp_path / "preds.jsonl"
    good = {predictions: PREDICTED, class_predictions: CLASSED, restorations: RESTORED}
    for module, row in good.items():
        for bad in (b'{"text": NaN}', DEEP.encode(), b'{"id": 1, "id": 2}', as_text({**row, "id": "a"})):
            path.write_bytes(as_text({**row, "id": "a"}) + b"\n\n" + bad + b"\n")
            place = r"preds\.jsonl(:3)?: "  # an id that comes twice is a matter of the file
            with pytest.raises(ConfigError, match=place):
                module.read(path)


# ---- what is no such file at all -------------------------------------------------------------------------

READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "card": ("adapter.json", lambda path: save.read(path.parent)),
    "recipe": ("recipe.yaml", lambda path: config.read(str(path))),
    "grid": ("grid.yaml", grid.read),
    "manifest": ("rows.jsonl", lambda path: list(manifest.read(path))),
    "predictions": ("preds.jsonl", predictions.read),
    "classes": ("preds.jsonl", class_predictions.read),
    "restorations": ("preds.jsonl", restorations.read),
    "scores": ("scores.json", gate.read),
    "results": ("results.jsonl", lambda path: Results(path.parent).rows()),
    "ledger": (".speech_peft/ledger.jsonl", lambda path: Ledger(path.parent.parent)),
}
CONTENTS: dict[str, bytes] = {
    "empty": b"",
    "zeros": b"\0" * 100,
    "deep": DEEP.encode(),
    "deep objects": b'{"a":' * 50_000,
    "half": b'{"id": "a", "method": "lo',
    "not text": bytes(range(256)),
    "utf-16": '{"id": "a"}'.encode("utf-16"),
    "long line": b'"' + b"a" * 2_000_000,
    "digits": b"9" * 10_000,
    "surrogates": b'{"id": "\\ud800", "audio_filepath": "\\udfff"}',
    "separators": "\u2028\u0085\x0b\x0c".encode(),
}


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_such_file_is_refused_or_read_as_nothing(tmp_path: Path, reader: str, content: str):
    name, read = READERS[reader]
    path = tmp_path / "there" / name
    path.parent.mkdir(parents=True)
    (tmp_path / "there" / "adapter.safetensors").write_bytes(b"\x02\0\0\0\0\0\0\0{}")
    path.write_bytes(CONTENTS[content])
    refused_or_done(lambda: read(path))


@pytest.mark.parametrize("reader", [name for name in READERS if name not in ("ledger", "results")])
def test_a_pipe_is_no_file_and_is_not_waited_for(tmp_path: Path, reader: str):
    name, read = READERS[reader]
    path = tmp_path / name
    (tmp_path / "adapter.safetensors").write_bytes(b"")
    os.mkfifo(path)
    refused_or_done(lambda: read(path))


@pytest.mark.parametrize("reader", ["benchmark", "class_benchmark"])
@pytest.mark.parametrize("content", [DEEP, "[]", '{"backbone": 1, "head_config": [1]}', '{"x": NaN}', "\0"])
def test_a_benchmark_reads_the_cards_of_adapters_through_the_same_door(tmp_path, reader, content):
    from speech_peft.bench.runs import asr as benchmark
    from speech_peft.bench.runs import classify as class_benchmark

    (tmp_path / "adapter.json").write_text(content)
    read = {"benchmark": benchmark._backbone, "class_benchmark": class_benchmark.classifier_head}[reader]
    with pytest.raises(ConfigError):
        read(tmp_path)
