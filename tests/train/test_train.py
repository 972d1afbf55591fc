"""python -m speech_peft.train: what it prints, what it leaves behind, and its exit codes."""

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from speech_peft.backbones import families
from speech_peft.train import __main__ as train
from tests import tiny


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setattr(families, "open_backbone", families.open_backbone)
    tiny.use_tiny_backbones()


def test_a_run_leaves_the_adapter_and_what_repeats_it(tmp_path, capsys):
    path = tiny.recipe(tmp_path)
    assert train.main([str(path), "trainer.max_steps=2", "trainer.tensorboard=true"]) == 0
    run = tmp_path / "run"
    assert f"adapter: {run / 'a'}" in capsys.readouterr().out
    for file in (
        "a/adapter.json",
        "a/recipe.yaml",
        "a/README.md",
        "metrics.jsonl",
        "config.yaml",
        "last.ckpt",
    ):
        assert (run / file).exists(), file
    assert list((run / "tensorboard").iterdir())
    assert json.loads((run / "env.json").read_text())["torch"] == version("torch")
    first = (run / "metrics.jsonl").read_text().splitlines()
    assert train.main([str(run / "config.yaml"), "--resume", "never", f"out={tmp_path}/again"]) == 0
    again = (tmp_path / "again" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in again] == [json.loads(line)["loss"] for line in first]


def test_plain_lines_show_loss_rate_speed_padding_and_time_left(tmp_path, capsys):
    assert train.main([str(tiny.recipe(tmp_path))]) == 0
    shown = capsys.readouterr().err
    assert "a (bottleneck, active)" in shown
    for word in ("step 6", "loss", "lr", "x real time", "padding", "left"):
        assert word in shown, word
    assert "\r" not in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optim.lrr=1"], "optim.lrr: OptimConfig has no field 'lrr'"),
        (["adapters.a.rank=4"], "adapters.a.rank: Bottleneck has no field 'rank'"),
        (["adapters.a.method=lorra"], "adapters.a.method: no method is called 'lorra'"),
        (["adapters.a.sites=[layers.9.ffn]"], "no site matches 'layers.9.ffn'"),
        (["data.degrade=telefone"], "no preset is called 'telefone'"),
        (["data.degrade=[{kind: noise, snr: loud}]"], "data.degrade[0]"),
        (["data.train=nowhere.jsonl"], "data.train: nowhere.jsonl does not exist"),
        (["--resume", "maybe"], "'--resume': 'maybe' is not one of 'auto', 'never'"),
    ],
)
def test_a_mistake_ends_with_2_and_says_where(tmp_path, capsys, arguments, message):
    assert train.main([str(tiny.recipe(tmp_path)), *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run" / "last.ckpt").exists()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--schema"], ["no/such_recipe"], ["asr/whisper_parallel"], []]
)
def test_what_needs_no_model_does_not_import_torch(arguments):
    code = (
        "import sys; from speech_peft.train.__main__ import main\n"
        f"code = main({arguments!r}); assert 'torch' not in sys.modules; raise SystemExit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == (0 if arguments and arguments[0] in ("--help", "--schema") else 2), done.stderr
    if arguments == ["--schema"]:
        assert "$defs" in json.loads(done.stdout)


def test_check_prints_the_whole_recipe_and_trains_nothing(tmp_path, capsys):
    assert train.main([str(tiny.recipe(tmp_path)), "--check"]) == 0
    assert "weight_decay: 0.0" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()
