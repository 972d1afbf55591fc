"""Tables of what sweeps measured."""

import json
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def tables(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import sweep_tables  # type: ignore[import-not-found]

    yield sweep_tables
    sys.modules.pop("sweep_tables")


def entry(name: str, mean: float | None, metric: str = "accuracy", trained: int = 3) -> dict[str, object]:
    """What a sweep says of one method."""
    costs = {f"{part}_parameters": trained for part in ("adapter", "head", "base")}
    others = dict.fromkeys(("epoch_cpu_seconds", "run_memory_mb", "bytes_of_full", "overhead"))
    reached = {"seeds": 0 if mean is None else 3, metric: {"mean": mean, "deviation": 0.01}}
    costs |= {"adapter_bytes": 2_000, "step_cpu_seconds": 0.5}
    return {"method": name, "vary": {}, "failed": 0, **reached, **costs, **others}


def summary(metric: str, methods: list[dict[str, object]]) -> dict[str, object]:
    return {"metric": metric, "done": 3, "cells": 4, "failed": 0, "methods": methods}


def test_a_summary_becomes_a_table_and_the_best_of_each_method(tables, tmp_path):
    methods = [entry("lora_4", 0.8), entry("lora", 0.9), entry("low_bit_lora", 0.7), entry("pissa", None)]
    (tmp_path / "esc10.json").write_text(json.dumps(summary("accuracy", methods)))
    sweeps = tables.summaries(tmp_path)
    assert tables.reached("lora", sweeps) == "esc10 0.900 ± 0.010"
    assert tables.reached("low_bit", sweeps) == "esc10 0.700 ± 0.010"
    assert tables.reached("pissa", sweeps) == "–"
    assert ".svg" not in tables.measured(sweeps, tmp_path)
    (tmp_path / "esc10_bytes.svg").touch()
    page = tables.measured(sweeps, tmp_path)
    assert f"({tmp_path.name}/esc10_bytes.svg)" in page
    assert "### esc10" in page
    assert "| [`lora_4`](#lora) " in page
    assert "| [`low_bit_lora`](#low_bit) " in page


def test_methods_are_compared_over_sweeps(tables):
    sounds = summary("accuracy", [entry("lora", 0.8), entry("probe", 0.9), entry("pissa", None)])
    speech = summary("wer", [entry("lora", 0.5, "wer", 7), entry("hydra", 0.4, "wer", 7)])
    text = tables.compared({"sounds": sounds, "speech": speech}, "page.md")
    head, _, *lines = text.splitlines()
    assert head == "| method | sounds, accuracy | speech, WER | trains | KB | CPU s/step | infer x |"
    assert lines == [
        "| probe | 0.900 ± 0.010 | – | 9 | 2 | 0.50 | - |",
        "| [`lora`](page.md#lora) | 0.800 ± 0.010 | 0.500 ± 0.010 | 9 | 2 | 0.50 | - |",
        "| [`hydra`](page.md#hydra) | – | 0.400 ± 0.010 | 21 | 2 | 0.50 | - |",
    ]


def test_of_errors_the_fewest_are_the_best(tables):
    sweeps = {"speech": summary("wer", [entry("lora_4", 0.5, "wer"), entry("lora_8", 0.4, "wer")])}
    assert tables.reached("lora", sweeps) == "speech 0.400 ± 0.010"
    assert "lora_8" in tables.compared(sweeps).splitlines()[2]


def test_what_is_between_the_marks_is_replaced(tables):
    text = "a\n<!-- x -->\nold\n<!-- /x -->\nb\n"
    once = tables.between(text, "x", "| new |\n")
    assert once == "a\n<!-- x -->\n\n| new |\n\n<!-- /x -->\nb\n"
    assert tables.between(once, "x", "| new |\n") == once
