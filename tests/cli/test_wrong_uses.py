"""Wrong uses of every command: one line that names what may be given, exit code 2, and no waiting."""

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Sequence

import pytest

from speech_peft.terminal.program import PROGRAM

WRONG = {
    "trnascribe a.wav": "'transcribe'",
    "transcribe": "speech-peft transcribe --help",
    "transcribe a.wav --vad webrtc": "'silero', 'energy', 'none'",
    "transcribe a.wav --dtype fp8": "'auto', 'float32', 'bfloat16', 'int8'",
    "transcribe a.wav --engine tensorrt": "'auto', 'torch', 'ct2'",
    "transcribe a.wav --device tpu": "auto, cpu, cuda, cuda:1, ... or mps",
    "transcribe a.wav --format doc": "all, html, json, jsonl, srt, tsv, txt, vtt",
    "transcribe a.wav --beam-size 99": "20",
    "transcribe a.wav --beamsize 5": "--beam-size",
    "transcribe a.wav --progress dots": "'auto', 'plain', 'json'",
    "transcribe no-such-file.wav --offline": "no-such-file.wav",
    "classify a.wav": "--adapter",
    "classify a.wav --adapter x --channels left": "'mix', 'first'",
    "classify a.wav --adapter x --top-k 0": "1",
    "restore a.wav --adapter x --sr 44100": "'keep', '16000', '24000', '48000'",
    "restore a.wav --adapter x --guard on": "'full', 'sound', 'off'",
    "restore a.wav --adapter x --strength 2": "1",
    "generate a.wav": "--adapter",
    "generate a.wav --adapter x --at 0.7-0.5": "0.5-0.7",
    "transcribe a.wav --on ray": "--shards",
    "transcribe a.wav --shards 0": "1",
    "transcribe a.wav --shards 2 --print": "--out",
    "restore a.wav --adapter x --shards 2 --out-format zip": "'tar', 'parquet', 'files'",
    "shards": "Usage",
    "estimate a.wav --verb restore": "--adapter",
    "estimate a.wav --days 0": "0.01",
    "shards verify": "--help",
    "train": "asr/whisper_parallel",
    "train asr/whisper_paralel": "asr/whisper_parallel",
    "train asr/whisper_parallel --resume maybe": "'auto', 'never'",
    "train asr/whisper_parallel data.train=a data.valid=b optim.lrr=1": "'lr'",
    "sweep a.yaml b.yaml": "--out",
    "bench": "asr",
    "bench ask": "asr, classify, restore, score, diff, check",
    "bench asr --data d --out o --normalizer english-us": "'english'",
    "bench asr --data d --out o --seen maybe": "'refuse', 'report'",
    "bench score": "--help",
    "prepare libri": "librispeech",
    "prepare asterisk-prompts --lang de": "'en', 'es', 'fr', 'it', 'ru'",
    "recipes show nosuch": "asr/whisper_parallel",
    "adapter import-peft f --out o --weights w --backbone bert": "'whisper', 'ast', 'conformer', 'usm'",
    "adapter together a --out o": "two or more",
    "adapter merge-adapters a b --out o --how mean": "'average', 'sum', 'mera'",
    "adapter merge-adapters a b --out o --factors x,1": "expected some such as 1,0.5",
    "export a --out o --to tflite": "'hf', 'ct2', 'ggml', 'onnx', 'peft'",
    "adapt-words words.txt --out o --voices 1": "greater than or equal to 2",
    "data preview asr/whisper_parallel --number 0": "1",
    "doctor --jsno": "--json",
    "adapter search -c x": "give words, --audio, or both",
    "adapter search czech -k 0": "1",
    "packs make p cs": "'cs' has no name; expected such as cs=",
    "transcribe a.wav --packs-by word": "'file', 'segment'",
    "methods shw": "list, show",
    "sites": "Usage",
}
EXPLAINED = ("transcribe", "bench", "shards", "sites")  # without arguments they say all that there is


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What each says, of one fresh interpreter for all, as torch is to be missed when it is imported."""
    code = "import sys; from tests.cli.test_wrong_uses import heard; heard(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, *WRONG], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def heard(commands: Sequence[str]) -> None:
    """Run each and print, as JSON, what it did."""
    from speech_peft.cli.main import main

    found = {}
    for command in commands:
        error, started = io.StringIO(), time.perf_counter()
        with contextlib.redirect_stderr(error), contextlib.redirect_stdout(io.StringIO()) as output:
            code = main(command.split())
        found[command] = {
            "code": code,
            "error": error.getvalue(),
            "output": output.getvalue(),
            "seconds": time.perf_counter() - started,
            "torch": "torch" in sys.modules,
        }
    print(json.dumps(found))


@pytest.mark.parametrize("command", WRONG)
def test_a_wrong_use_is_one_line_that_names_what_may_be_given(said: dict[str, dict], command: str):
    what = said[command]
    assert what["code"] == 2
    assert what["output"] == ""
    if command in EXPLAINED:
        assert what["error"].startswith(f"Usage: {PROGRAM} {command} ")
    else:
        assert what["error"].startswith("error: ")
        assert what["error"].count("\n") == 1, what["error"]
        assert WRONG[command] in what["error"]
    assert not what["torch"]
    assert what["seconds"] < 2


def test_there_are_enough_of_them_over_all_commands():
    from speech_peft.cli.main import COMMANDS

    assert len(WRONG) >= 25
    assert {command.split()[0] for command in WRONG} >= set(COMMANDS)
