"""Two processes are one process with the double batch, also where each has workers of its own."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from speech_peft.audio import manifest
from speech_peft.backbones import families
from speech_peft.train.data import clips
from tests import tiny
from tests.train.test_shards_as_data import tars
from tests.workers import launched, slurm_nodes, torchrun, torchrun_nodes

TWO = ["data.seconds_per_batch=1", "trainer.strategy=ddp"]
"""One process has the double batch."""
PLACES = {torchrun: ["trainer.devices=2"]}
"""Two processes of one machine; elsewhere one on each of two."""
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()


def by_one_and_by_two(path: Path, *over: str, by=torchrun) -> list[Path]:
    """The folders of the same run in this process, and in two that are told of each other."""
    folders = [path.parent / name for name in ("one", "two")]
    tiny.run(path, f"out={folders[0]}", *over, "data.seconds_per_batch=2")
    two = [f"out={folders[1]}", *over, *TWO, *PLACES.get(by, ["trainer.devices=1", "trainer.nodes=2"])]
    launched(lambda: tiny.run(path, *two), by)
    return folders


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["whisper", "ctc"])
def test_two_gloo_processes_equal_one_with_the_double_batch(tmp_path, decoder):
    (tmp_path / "data").mkdir()
    tiny.corpus(tmp_path / "data", clips=8, seconds=0.5)
    folders = by_one_and_by_two(tiny.recipe(tmp_path, decoder))
    one, two = (load_file(folder / "a" / "adapter.safetensors") for folder in folders)
    torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-4)


CLASSIFY = {"task": {"name": "classify"}}
TWO_METHODS = {  # in one run, beside a head that is averaged
    "a": {"method": "lte", "workers": 2, "rank": 2, "every": 2, "sites": ["*.attn.[qv]"]},
    "b": {"method": "hd_pissa", "workers": 2, "rank": 2, "sites": ["*.ffn.up"]},
}
NOTHING_SHARED = {"a": TWO_METHODS["a"]}


FEWER_FRAMES_AND_MORE_STREAMS = {
    "a": {"method": "coda", "width": 4, "sites": ["layers.0.block"], "ramp_steps": 2},
    "b": {"method": "parscale", "streams": 2, "frames": 2, "hidden": 4, "sites": ["layers.1.attn"]},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "launcher"),
    [("whisper_lte_two", TORCHRUN), ("whisper_hd_pissa_two", [])],
    ids=["lte", "hd_pissa"],
)
def test_a_recipe_of_two_processes_runs_as_documented_and_ends_by_its_minutes(tmp_path, name, launcher):
    for part in ("train", "valid"):
        for word in ("dog", "rain"):
            (tmp_path / part / word).mkdir(parents=True)
            tiny.corpus(tmp_path / part / word, clips=4, seconds=0.5).unlink()
    over = [f"data.{part}={tmp_path}/{part}" for part in ("train", "valid")]
    command = [sys.executable, *launcher, str(Path(tiny.__file__)), f"classify/{name}", *over]
    # What is documented, but for how long and how often: it logs, validates and ends by the clock.
    short = ["trainer.max_minutes=0.05", "trainer.valid_every_steps=4", "trainer.log_every_steps=1"]
    small = [f"out={tmp_path}/run", "trainer.max_trainable_pct=99"]
    run = subprocess.Popen(
        [*command, *short, *small],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        said, errors = run.communicate(timeout=240)  # it takes seconds; a busy machine imports for minutes
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)  # what hangs would hang on
    assert run.returncode == 0, errors
    assert said.count("adapter: ") == 1
    assert (tmp_path / "run" / "sounds" / "adapter.json").is_file()


@pytest.mark.slow
def test_two_processes_choose_the_frames_and_weigh_the_streams_of_one(tmp_path):
    (tmp_path / "data").mkdir()
    tiny.corpus(tmp_path / "data", clips=8, seconds=0.5)
    path = tiny.recipe(tmp_path, adapters=FEWER_FRAMES_AND_MORE_STREAMS, **CLASSIFY)
    folders = by_one_and_by_two(path, "trainer.max_steps=4", "optim.lr=1e-3")
    for name in FEWER_FRAMES_AND_MORE_STREAMS:
        one, two = (load_file(folder / name / "adapter.safetensors") for folder in folders)
        torch.testing.assert_close(two, one, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "adapters", "by"),
    [
        pytest.param(CLASSIFY, TWO_METHODS, slurm_nodes, id="two methods on two nodes of SLURM"),
        pytest.param({}, NOTHING_SHARED, torchrun_nodes, id="nothing shared on two nodes of torchrun"),
    ],
)
def test_workers_in_two_processes_equal_one_process_that_simulates_them(tmp_path, changes, adapters, by):
    (tmp_path / "data").mkdir()
    tiny.corpus(tmp_path / "data", clips=8, seconds=0.5)
    path = tiny.recipe(tmp_path, adapters=adapters, **changes)
    folders = by_one_and_by_two(path, "optim.clip_norm=0.01", "trainer.max_steps=5", by=by)
    files = [f"{name}/{part}.safetensors" for name in adapters for part in ("adapter", "head")]
    for file in files if changes else files[:1]:
        one, two = (load_file(folder / file) for folder in folders)
        assert any(tensor.any() for tensor in one.values())
        torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_each_of_two_processes_reads_its_own_clips_of_the_shards_and_both_go_on_where_they_were(tmp_path):
    path = tiny.recipe(tmp_path, data={"preload_hours": 0}, optim={"schedule": "constant"})
    tars(manifest.read(tmp_path / "data/train.jsonl"), tmp_path / "shards")
    over = [f"data.train={tmp_path}/shards", *TWO, "trainer.devices=2"]

    def broken():
        for steps in (2, 4):
            tiny.run(path, *over, f"out={tmp_path}/broken", f"trainer.max_steps={steps}", resume=True)

    def whole():
        read, decode = [], clips.decode
        clips.decode = lambda row, rate: (read.append(row.id), decode(row, rate))[1]
        tiny.run(path, *over, f"out={tmp_path}/whole", "trainer.max_steps=4")
        (tmp_path / os.environ["RANK"]).write_text(" ".join(read))

    launched(broken, torchrun)
    launched(whole, torchrun)
    mine, others = ((tmp_path / rank).read_text().split() for rank in "01")
    assert mine
    assert others
    assert not set(mine[:4]) & set(others[:4])  # of the first epoch
    once, again = (load_file(tmp_path / name / "a/adapter.safetensors") for name in ("whole", "broken"))
    assert all(torch.equal(once[key], again[key]) for key in once)
