"""Sweeps from the grid to the table: on tiny backbones, killed, resumed, and by several processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from speech_peft.audio import io
from speech_peft.backbones import families
from speech_peft.errors import ConfigError
from speech_peft.opening import loading
from speech_peft.recipe import config
from speech_peft.sweep import __main__ as sweep
from speech_peft.sweep import cell as cells
from speech_peft.sweep import grid, memory, overhead
from speech_peft.sweep.results import Results
from speech_peft.sweep.table import markdown, summary
from speech_peft.train import callbacks
from speech_peft.train.data.prefix_cache import Memory
from tests import tiny

FOLDS = {
    1: {
        "data.train_where": {"fold": [3, 4, 5]},
        "data.valid_where": {"fold": [2]},
        "test_where": {"fold": [1]},
    },
    2: {
        "data.train_where": {"fold": [3, 4, 5]},
        "data.valid_where": {"fold": [1]},
        "test_where": {"fold": [2]},
    },
}
PROBE = {"adapters": {"a": {"method": "none"}}}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)  # put back afterwards
    tiny.use_tiny_backbones()
    monkeypatch.setattr(loading, "open_backbone", families.open_backbone)


def written(folder: Path, methods: dict, **more) -> tuple[str, str]:
    """A recipe of two steps and a grid over it."""
    data = folder / "data"
    if not data.exists():
        data.mkdir()
        tiny.corpus(data, clips=15, seconds=0.5)
    recipe = tiny.recipe(
        folder, task={"name": "classify"}, trainer={"max_steps": 2, "max_trainable_pct": 100}
    )
    tree = {"methods": methods, "seeds": [0], "folds": FOLDS, **more}
    (folder / "grid.yaml").write_text(yaml.safe_dump(tree))
    return str(recipe), str(folder / "grid.yaml")


def planned(folder: Path, methods: dict, *overrides: str, **more) -> list[grid.Cell]:
    recipe, path = written(folder, methods, **more)
    return grid.cells(recipe, grid.read(path), folder / "out", overrides)


def go(folder: Path, methods: dict, *arguments: str, **more) -> int:
    return sweep.main([*written(folder, methods, **more), "-o", str(folder / "out"), *arguments])


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "out" / "results.jsonl").read_text().splitlines()]


def test_every_cell_is_trained_tested_and_measured_once(tmp_path, capsys, monkeypatch):
    methods = {"probe": PROBE, "own": {}, "full": {**PROBE, "backbone.train": True}}
    assert go(tmp_path, methods, seeds=[0, 1]) == 0
    rows = lines(tmp_path)
    assert len({row["key"] for row in rows}) == len(rows) == 12
    for row in rows:
        assert row["error"] is None
        assert row["steps"] == 2
        assert row["test_clips"] == 2
        assert 0 <= row["accuracy"] == 1 - row["error_rate"] <= 1
        assert row["head_parameters"] > 0
        assert (row["adapter_parameters"] > 0) == (row["method"] == "own")
        assert (row["base_parameters"] > 0) == (row["method"] == "full")
        assert row["epoch_seconds"] > 0
        assert row["valid"]["name"] == "error_rate"
        folder = Path(row["folder"])
        assert (folder / "a" / "adapter.json").exists()
        assert not (folder / "last.ckpt").exists()
        assert len((folder / "preds.jsonl").read_text().splitlines()) == 2
    table = capsys.readouterr().out
    assert (tmp_path / "out" / "summary.md").read_text() == table
    assert "12 of 12 cells" in table
    found = json.loads((tmp_path / "out" / "summary.json").read_text())
    of_full = {one["method"]: one["bytes_of_full"] for one in found["methods"]}
    assert of_full["probe"] < of_full["own"] < of_full["full"] == 1

    monkeypatch.setattr(cells, "train", None)  # nothing trains the second time
    assert go(tmp_path, methods, seeds=[0, 1]) == 0
    assert lines(tmp_path) == rows
    assert capsys.readouterr().out == table
    assert go(tmp_path, methods, "--table", seeds=[0, 1]) == 0
    assert capsys.readouterr().out == table


def test_a_failed_cell_is_a_row_and_is_run_again_next_time(tmp_path, capsys, monkeypatch):
    train = cells.train

    def fails(recipe, **options):
        if "fold-2" in recipe.out:
            raise RuntimeError("no memory")
        return train(recipe, **options)

    monkeypatch.setattr(cells, "train", fails)
    assert go(tmp_path, {"probe": PROBE}) == 3
    assert [row["error"] for row in lines(tmp_path)] == [None, "RuntimeError: no memory"]
    assert "1 failed" in capsys.readouterr().out
    assert "no memory" in (tmp_path / "out/runs/probe/seed-0/fold-2/train.log").read_text()
    monkeypatch.setattr(cells, "train", train)
    assert go(tmp_path, {"probe": PROBE}) == 0
    assert [row["error"] for row in lines(tmp_path)][2:] == [None]
    assert "2 of 2 cells\n" in capsys.readouterr().out


def test_a_sweep_that_is_killed_goes_on_where_it_was(tmp_path):
    arguments = [*written(tmp_path, {"own": {}}, seeds=[0, 1]), "-o", str(tmp_path / "out")]
    code = (
        "import sys; from tests import tiny; tiny.use_tiny_backbones();"
        "from speech_peft.sweep import __main__ as sweep; from speech_peft.backbones import families;"
        "from speech_peft.opening import loading;"
        "loading.open_backbone = families.open_backbone; sys.exit(sweep.main(sys.argv[1:]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True)
    path, until = tmp_path / "out" / "results.jsonl", time.monotonic() + 120
    while not (path.exists() and path.read_text()) and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    first = lines(tmp_path)
    assert 1 <= len(first) < 4
    with path.open("a") as file:
        file.write('{"key": "torn')
    assert sweep.main(arguments) == 0
    found = Results(tmp_path / "out").rows()
    assert len(found) == 4
    assert found[first[0]["key"]] == first[0]


def test_a_signal_in_the_last_moment_of_a_run_ends_the_sweep(tmp_path, capsys, monkeypatch):
    ended = callbacks.Stop.on_train_end

    def asked(self, trainer, task):
        signal.raise_signal(signal.SIGTERM)
        ended(self, trainer, task)

    monkeypatch.setattr(callbacks.Stop, "on_train_end", asked)
    assert go(tmp_path, {"probe": PROBE}) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert not (tmp_path / "out" / "results.jsonl").exists()
    monkeypatch.setattr(callbacks.Stop, "on_train_end", ended)
    assert go(tmp_path, {"probe": PROBE}) == 0
    assert [row["steps"] for row in lines(tmp_path)] == [2, 2]


def test_a_cell_is_one_process_at_a_time(tmp_path):
    one, other = Results(tmp_path), Results(tmp_path)
    with one.claim("a") as mine:
        assert mine
        with other.claim("a") as theirs, other.claim("b") as free:
            assert not theirs
            assert free
    with other.claim("a") as theirs:
        assert theirs


def test_the_key_of_a_cell_is_what_its_figures_depend_on(tmp_path):
    (cell, _) = planned(tmp_path, {"own": {}})
    same = planned(tmp_path, {"renamed": {}}, "trainer.log_every_steps=7")[0]
    assert same.key == cell.key
    assert planned(tmp_path, {"own": {"optim.lr": 0.1}})[0].key != cell.key
    manifest = tmp_path / "data" / "train.jsonl"
    rows = [json.loads(line) for line in manifest.read_text().splitlines()]
    grid._read.cache_clear()
    rows[0]["label"] = "three"  # a test row's
    manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert planned(tmp_path, {"own": {}})[0].key != cell.key


def test_a_value_that_varies_names_one_folder_below_the_sweep(tmp_path):
    values = ["../../../up", "../../up", "a b", "x" * 300]
    folds = {str(name): fields for name, fields in FOLDS.items()}
    found = planned(tmp_path, {"probe": PROBE}, vary={"backbone.weights": values}, folds=folds)
    folders = [Path(cell.recipe.out).relative_to(tmp_path) for cell in found]
    assert len({folder.parts for folder in folders}) == len(found) == 2 * len(values)
    assert all(".." not in folder.parts and max(map(len, folder.parts)) <= 100 for folder in folders)
    assert len({len(folder.parts) for folder in folders}) == 1


def test_later_settings_win(tmp_path):
    more = {"set": {"optim.lr": 1.0, "seed": 9}, "vary": {"optim.weight_decay": [0.0, 1e-05]}}
    found = planned(tmp_path, {"own": {}, "slow": {"optim.lr": 1e-05}}, "data.seconds_per_batch=3", **more)
    assert [cell.recipe.optim.lr for cell in found[:4]] == [1.0, 1e-05, 1.0, 1e-05]
    assert [cell.recipe.optim.weight_decay for cell in found[:4]] == [0.0, 0.0, 1e-05, 1e-05]
    assert {cell.recipe.seed for cell in found} == {0}
    assert {cell.recipe.data.seconds_per_batch for cell in found} == {3.0}
    assert len({cell.recipe.out for cell in found}) == len(found) == 8


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"folds": {1: {**FOLDS[1], "test_where": {"fold": [2]}}}},
            "is tested, and it is trained or validated",
        ),
        ({"folds": {1: {**FOLDS[1], "test_where": {}}}}, "test_where: say which rows are tested"),
        ({"folds": {1: {**FOLDS[1], "test_where": {"fold": [99]}}}}, "no row has fold 99"),
        ({"folds": {"a/b": FOLDS[1]}}, "names a folder"),
        ({"test_degrade": ["telefone"]}, "no preset is called 'telefone'"),
        ({"methods": {"a": {"optim.lrr": 1}}}, "OptimConfig has no field 'lrr'"),
        ({"methods": {"a": {"adapters": {"a": {"method": "lora", "rnak": 1}}}}}, "Did you mean 'rank'?"),
        ({"methods": {"a": {}, "b": {}}}, "are the same run"),
        ({"sedes": [1]}, "Did you mean 'seeds'"),
    ],
)
def test_a_wrong_grid_is_said_before_anything_runs(tmp_path, capsys, changes, said):
    methods = changes.pop("methods", {"own": {}})
    assert go(tmp_path, methods, **changes) == 2
    assert said in capsys.readouterr().err


def test_runs_share_one_prefix_cache_and_babble_of_other_clips_has_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(Memory, "named", {})
    top = {"adapters": {"a": {"method": "bottleneck", "width": 4, "top": 1}}}
    methods = {"a": {**top, "data.cache": {"where": "memory"}}, "b": {**top, "optim.lr": 0.5}}
    methods["b"]["data.cache"] = {"where": "memory"}
    assert go(tmp_path, methods) == 0
    (store,) = Memory.named.values()
    assert len(store) == 10  # of folds 1 to 5, each clip once, whatever asked for it
    noisy = {"data.degrade": [{"kind": "babble"}], "data.variants": 1}
    found = planned(
        tmp_path,
        {"a": {**methods["a"], **noisy}},
        folds={**FOLDS, 3: {**FOLDS[1], "data.train_where": {"fold": [3, 4]}}},
    )
    folders = [cell.recipe.data.cache.folder for cell in found if cell.recipe.data.cache]
    assert len(set(folders)) == len(found) == 3


def test_the_table_is_of_whole_seeds(tmp_path):
    found = planned(tmp_path, {"a": {}, "b": {**PROBE, "backbone.train": True}}, seeds=[0, 1, 2])
    scores = {
        ("a", 0, "1"): 0.5,
        ("a", 0, "2"): 0.7,
        ("a", 1, "1"): 0.6,
        ("a", 1, "2"): 0.8,
        ("a", 2, "1"): 0.0,
    }

    def row(cell: grid.Cell, accuracy: float, size: int) -> dict:
        costs = {
            "adapter_parameters": 1,
            "head_parameters": 2,
            "base_parameters": size > 10,
            "adapter_bytes": size,
        }
        times = dict.fromkeys(
            ("epoch_seconds", "epoch_cpu_seconds", "peak_memory_mb", "run_memory_mb", "cell_seconds"), 1.0
        )
        figures = {"accuracy": accuracy, "macro_f1": 0.5, "map": None, "ece": 0.1, "valid": None}
        length = {"steps": 4, "epochs": 2.0}
        return {**cell.place(), **figures, **costs, **times, **length, "peak_gpu_mb": None, "error": None}

    rows = {
        cell.key: row(
            cell, scores.get((cell.method, cell.seed, cell.fold), 1.0), 5 if cell.method == "a" else 500
        )
        for cell in found
        if (cell.method, cell.seed, cell.fold) in scores or cell.method == "b"
    }
    one = next(row for row in rows.values() if row["method"] == "a")
    one |= {"epoch_cpu_seconds": None, "overhead": 1.25}
    table = summary(found, rows)
    a, b = table["methods"]
    assert (a["done"], a["cells"], a["seeds"]) == (5, 6, 2)
    assert a["accuracy"] == {"mean": pytest.approx(0.65), "deviation": pytest.approx(0.1 / 2**0.5)}
    assert a["map"]["mean"] is None
    assert (a["bytes_of_full"], b["bytes_of_full"]) == (0.01, 1.0)
    assert a["step_cpu_seconds"] == 0.5
    assert (a["overhead"], b["overhead"]) == (1.25, None)
    assert "0.6500 ± 0.0707" in markdown(table)
    assert "11 of 12 cells" in markdown(table)


def test_overhead_is_measured_on_what_is_finished(tmp_path, capsys):
    methods = {"own": {}, "lora": {"adapters": {"a": {"method": "lora", "rank": 2}}}}
    assert go(tmp_path, methods) == 0
    rows = {(row["method"], row["fold"]): row for row in lines(tmp_path)}
    for method, fold in (("own", "1"), ("lora", "1"), ("lora", "2")):
        shutil.rmtree(rows[method, fold]["folder"])
    capsys.readouterr()
    assert go(tmp_path, methods, "--overhead") == 0
    table, said = capsys.readouterr()
    (measured,) = lines(tmp_path)[len(rows) :]
    assert measured == {**rows["own", "2"], "overhead": measured["overhead"]}
    assert 0.2 < measured["overhead"] < 20
    assert "lora: its adapters are gone" in said
    assert f"own: {measured['overhead']:.3f} x" in said
    assert (tmp_path / "out" / "summary.md").read_text() == table
    assert f"{measured['overhead']:.2f}" in next(line for line in table.splitlines() if "| own" in line)


def test_an_adapter_that_waits_costs_what_it_waits(tmp_path, monkeypatch):
    (cell, _) = planned(tmp_path, {"own": {}})
    folder = Path(cells.run(cell)["folder"], "a")
    plain, opened = overhead.load(folder), overhead.load(folder)
    name = opened.model.sites["adapter"][0]
    part = opened.model.at("adapter", name)
    part.register_forward_hook(lambda *_: time.sleep(0.5))
    monkeypatch.setattr(overhead, "load", lambda *_: opened)
    waits = overhead.overhead(folder, rounds=3)
    monkeypatch.setattr(overhead, "load", lambda *_: plain)
    assert waits > 2 * overhead.overhead(folder, rounds=3)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux keeps a peak that can be reset")
def test_the_peak_of_a_run_is_its_own():
    large = np.ones(60_000_000)
    del large
    before = memory.start()
    assert before is not None
    small = np.ones(10_000_000)
    peak = memory.peak()
    assert peak is not None
    assert 70 < peak - before < 200
    del small


def test_a_sweep_of_recognition_is_scored_by_words(tmp_path, capsys):
    recipe, path = written(
        tmp_path, {"ctc": {"task": {"name": "asr", "decoder": "ctc"}}}, folds={1: FOLDS[1]}
    )
    assert sweep.main([recipe, path, "-o", str(tmp_path / "out")]) == 0
    (row,) = lines(tmp_path)
    assert row["wer"] > 0
    assert row["valid"]["name"] == "wer"
    assert " wer " in capsys.readouterr().out


def test_test_rows_are_degraded_the_same_way_for_every_cell(tmp_path):
    louder = [{"kind": "gain", "db": [6, 6]}]
    (cell,) = planned(tmp_path, {"own": {}}, folds={1: FOLDS[1]}, test_degrade=louder)
    (other,) = planned(tmp_path, {"own": {}}, folds={1: FOLDS[1]})
    assert cell.key != other.key
    one, again = (cells._rows(cell, tmp_path / name)[0].audio for name in ("one", "again"))
    came = io.load(cell.rows[0].audio).samples
    assert np.array_equal(io.load(one).samples, io.load(again).samples)
    assert np.allclose(io.load(one).samples, came * 10 ** (6 / 20), atol=1e-4)
    assert cells._rows(other, tmp_path)[0].audio == other.rows[0].audio


def test_what_is_wrong_with_a_cell_is_named(tmp_path):
    with pytest.raises(
        ConfigError, match=r"grid: own, fold 1: test row '0' .* is 'one', which is not learned"
    ):
        planned(
            tmp_path,
            {"own": {}},
            folds={1: {**FOLDS[1], "data.train_where": {"fold": [3], "label": ["three"]}}},
        )


def test_bundled_grids_fit_their_recipes(tmp_path):
    for name, path in grid.bundled().items():
        command = path.read_text().split()
        assert command[:4] == ["#", "python", "-m", "speech_peft.sweep"]
        assert command[4] in config.bundled()
        assert command[5] == name


def test_a_cell_never_removes_a_folder_that_no_sweep_made(tmp_path):
    (cell, _) = planned(tmp_path, {"own": {}})
    mine = Path(cell.recipe.out) / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("keep")
    for mark in (None, "my own file of this name"):
        if mark is not None:
            (mine.parent / cells.MARK).write_text(mark)
        row = cells.run(cell)
        assert "no sweep made" in row["error"]
        assert mine.read_text() == "keep"
