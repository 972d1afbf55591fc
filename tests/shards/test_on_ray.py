"""Actors of Ray make what one process makes, whatever ends them. Skipped where Ray is not installed."""

import os
import sys
import time
from pathlib import Path

import pytest

from speech_peft.cli.main import main
from speech_peft.folders.progress import Quiet
from speech_peft.folders.runner import Policy
from speech_peft.shards import look
from speech_peft.shards.asked import Asked
from speech_peft.shards.blocks import Cut

from .made import SUFFIXES, go, manifest, task, upper
from .test_shards import members


def test_help_and_wrong_uses_know_nothing_of_ray(capsys):
    for word in ("transcribe", "classify", "restore"):
        main([word, "--help"])
    assert "--on" in capsys.readouterr().out
    assert "ray" not in sys.modules


def poisoned(jobs):
    """Rows that end a process or stand still, by their names."""
    for job in jobs:
        if job.relpath == "row-0003":
            os.abort()
        if job.relpath == "row-0008":
            time.sleep(3600)
        yield from upper([job])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_actors_make_what_one_process_makes_and_rows_that_end_them_are_named(tmp_path: Path):
    ray = pytest.importorskip("ray")
    from speech_peft.shards import on_ray

    path = manifest(tmp_path, 12, bad=[5])
    go(path, tmp_path / "one", shards=4)
    asked = Asked(4, on="ray", workers=2, row_seconds=2.0)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        for out, work in (("same", upper), ("poison", poisoned)):
            made = task(tmp_path / out, shards=4, work=work)
            code = on_ray.run(made, Cut([str(path)], SUFFIXES, 4), Quiet(), Policy(), asked)
            assert code == 3
    finally:
        ray.shutdown()
    assert members(tmp_path / "same") == members(tmp_path / "one")
    assert {one.name for one in (tmp_path / "same").glob("*.tar")} == {
        one.name for one in (tmp_path / "one").glob("*.tar")
    }
    found = look.status(tmp_path / "poison")
    assert (found.done, found.ok, found.failed, found.quarantined) == (4, 9, 3, 2)
    errors = (tmp_path / "poison/.speech_peft/errors.jsonl").read_text()
    assert "row-0003" in errors
    assert "row-0008" in errors
    assert "finished no row for 2 s" in errors
