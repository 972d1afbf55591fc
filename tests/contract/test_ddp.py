"""Two processes are one process with the double batch."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["whisper", "ctc"])
def test_two_gloo_processes_equal_one_with_the_double_batch(tmp_path, decoder):
    (tmp_path / "data").mkdir()
    tiny.corpus(tmp_path / "data", clips=8, seconds=0.5)
    path = tiny.recipe(tmp_path, decoder)
    runs = {
        "one": ["data.seconds_per_batch=2"],
        "two": ["data.seconds_per_batch=1", "trainer.devices=2", "trainer.strategy=ddp"],
    }
    for out, over in runs.items():
        command = [sys.executable, str(Path(tiny.__file__)), str(path), f"out={tmp_path}/{out}", *over]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    one, two = (load_file(tmp_path / out / "a" / "adapter.safetensors") for out in runs)
    torch.testing.assert_close(two, one, atol=1e-5, rtol=1e-4)
