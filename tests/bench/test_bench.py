"""`bench`: from a manifest to a page, with a transcriber that answers from a script."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import speech_peft
from speech_peft.audio import io
from speech_peft.audio import manifest as manifests
from speech_peft.audio.manifest import Row
from speech_peft.bench import __main__ as bench
from speech_peft.bench import options, own_files
from speech_peft.bench.evaluate import Rate, evaluate
from speech_peft.bench.runs import asr as benchmark
from speech_peft.bench.scores.asr import Options, Run, score, scores
from speech_peft.bench.table import table
from speech_peft.errors import ConfigError
from speech_peft.metrics import slices
from speech_peft.metrics.normalise import normaliser
from speech_peft.predictions import words as predictions
from speech_peft.transcribe.result import Result

TEXTS = ["press one for sales", "goodbye", "", "please hold the line", "it is 5 o'clock"]


def heard(path: Path, text: str, duration: float = 1.0, error: str | None = None) -> Result:
    """What a transcriber gives for a file."""
    about = {"context": "full"}
    return Result(str(path), text, duration=duration, seconds=0.1, error=error, about=about)


class Scripted:
    """Hears every text; the base mishears the word "sales" and cannot read files named `broken`."""

    def __init__(self, words: dict[str, str], adapted: bool):
        self.words, self.adapted, self.calls = words, adapted, []

    def transcribe(self, inputs):
        self.calls.append([job.audio for job in inputs])
        for path in self.calls[-1]:
            if "broken" in path.name:
                yield heard(path, "", 0.0, error="is not audio")
                continue
            name = next(name for name in self.words if path.stem.startswith(name))
            text = self.words[name] if self.adapted else self.words[name].replace("sales", "cells")
            yield heard(path, text)


@pytest.fixture
def manifest(tmp_path):
    """Five utterances of a second each, in a JSONL manifest."""
    lines = []
    for at, text in enumerate(TEXTS):
        io.save(tmp_path / f"u{at}.wav", np.full(16_000, 0.1 * (at + 1), np.float32), 16_000)
        row = {"audio_filepath": f"u{at}.wav", "text": text, "lang": "en", "room": "ab"[at % 2]}
        lines.append(json.dumps(row))
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "phone"
    folder.mkdir()
    (folder / "adapter.json").write_text(json.dumps({"backbone": {"id": "org/model"}}))
    return folder


@pytest.fixture
def opened(monkeypatch):
    """The transcribers that were made, in order."""
    made = []

    def open_scripted(system, settings):
        made.append(Scripted({f"u{at}": text for at, text in enumerate(TEXTS)}, system.adapter is not None))
        return made[-1]

    monkeypatch.setattr(benchmark, "open_transcriber", open_scripted)
    return made


def run(*arguments) -> int:
    return bench.main([str(argument) for argument in arguments])


def test_base_and_adapter_are_run_scored_and_compared(manifest, adapter, opened, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("asr", "--data", manifest, "--adapter", adapter, "--base", "-o", out) == 0
    found = json.loads((out / "scores.json").read_text())
    base, phone = found["runs"]["base"], found["runs"]["phone"]
    words = 4 + 1 + 0 + 4 + 4  # the English normaliser leaves "it is 5 o'clock" four words
    assert (base["wer"]["substitutions"], base["wer"]["reference"]) == (1, words)
    assert base["wer"]["rate"] == 1 / words
    assert phone["wer"]["rate"] == 0
    used = {"id": "auto", "version": normaliser("auto").version, "met": {"english": len(TEXTS)}}
    assert found["normaliser"] == used
    (pair,) = found["comparisons"]
    assert (pair["a"], pair["b"], pair["better"], pair["worse"], pair["same"]) == ("base", "phone", 1, 0, 4)
    assert pair["delta"] == pytest.approx(-1 / words)
    rows = [json.loads(line) for line in (out / "base" / "preds.jsonl").read_text().splitlines()]
    assert {"audio_filepath", "duration", "time", "text", "pred_text", "id"} <= rows[0].keys()
    assert rows[0]["pred_text"] == "press one for cells"
    assert rows[1]["room"] == "b"
    text = (out / "report.html").read_text()
    assert text.count("data:audio/mpeg") == len(TEXTS)
    assert "base → phone" in capsys.readouterr().out


def test_warm_up_runs_first_and_is_not_in_the_time(manifest, opened, tmp_path):
    assert run("asr", "--data", manifest, "-o", tmp_path / "out") == 0
    (transcriber,) = opened
    assert [len(call) for call in transcriber.calls] == [4, 5]
    about = json.loads((tmp_path / "out" / "base" / "run.json").read_text())
    found = json.loads((tmp_path / "out" / "scores.json").read_text())["runs"]["base"]
    assert found["rtfx"] == pytest.approx(5.0 / about["seconds"])
    assert about["hardware"]["threads"] >= 1
    assert about["measured"].items() >= {"manifest": str(manifest), "rows": 5, "degradation": None}.items()
    assert about["measured"]["version"] == speech_peft.__version__
    assert about["config"]["context"] == "full"


def test_one_unreadable_recording_counts_as_deleted_and_exits_with_3(manifest, opened, tmp_path):
    (tmp_path / "broken.wav").write_text("no audio")
    line = json.dumps({"audio_filepath": "broken.wav", "text": "two words", "lang": "en", "room": "a"})
    manifest.write_text(manifest.read_text() + "\n" + line)
    assert run("asr", "--data", manifest, "-o", tmp_path / "out") == 3
    found = json.loads((tmp_path / "out" / "scores.json").read_text())["runs"]["base"]
    assert (found["failed"], found["wer"]["deletions"]) == (1, 2)
    assert "is not audio" in (tmp_path / "out" / "report.html").read_text()


def test_nothing_readable_exits_with_1(opened, tmp_path):
    (tmp_path / "broken.wav").write_text("no audio")
    (tmp_path / "test.jsonl").write_text(json.dumps({"audio_filepath": "broken.wav", "text": "a"}))
    assert run("asr", "--data", tmp_path / "test.jsonl", "-o", tmp_path / "out") == 1


def test_slices_of_a_recording_become_files_of_their_own(opened, tmp_path):
    ramp = np.linspace(0, 0.9, 32_000, dtype=np.float32)
    io.save(tmp_path / "long.wav", ramp, 16_000)
    rows = [
        {"id": f"u{at}", "audio_filepath": "long.wav", "offset": at, "duration": 1.0, "text": TEXTS[at]}
        for at in (0, 1)
    ]
    (tmp_path / "test.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    assert run("asr", "--data", tmp_path / "test.jsonl", "-o", tmp_path / "out") == 0
    second = io.load(opened[0].calls[-1][1])
    assert second.samples == pytest.approx(ramp[16_000:], abs=1e-4)


def test_degraded_copies_are_the_same_for_the_same_seed_and_play_in_the_report(manifest, opened, tmp_path):
    def noisy(out: str, seed: int) -> list[np.ndarray]:
        arguments = ("--data", manifest, "-o", tmp_path / out, "--degrade", "telephone", "--seed", seed)
        assert run("asr", *arguments) == 0
        assert all(path.parent == tmp_path / out / "degraded" for path in opened[-1].calls[-1])
        return [io.load(path).samples for path in opened[-1].calls[-1]]

    first, again, other = noisy("a", 1), noisy("b", 1), noisy("c", 2)
    assert all((x == y).all() for x, y in zip(first, again, strict=True))
    assert any((x != y).any() for x, y in zip(first, other, strict=True))
    assert (tmp_path / "a" / "report.html").read_text().count("data:audio/mpeg") == len(TEXTS)


def test_degradation_is_read_from_yaml_too(tmp_path):
    (tmp_path / "steps.yaml").write_text("- {kind: noise, snr: [0, 5]}\n- telephone\n")
    first, *rest = options.degradation(str(tmp_path / "steps.yaml"))
    assert first.kind == "noise"
    assert rest == [*options.degradation("telephone")]


def test_score_equals_the_scores_of_the_run_it_reads(manifest, adapter, opened, tmp_path):
    out, again = tmp_path / "out", tmp_path / "again"
    run("asr", "--data", manifest, "--adapter", adapter, "--base", "-o", out)
    assert run("score", out / "base", out / "phone" / "preds.jsonl", "-o", again) == 0
    assert json.loads((again / "scores.json").read_text()) == json.loads((out / "scores.json").read_text())


def test_leaderboard_predictions_of_another_tool_can_be_scored(tmp_path):
    row = {"audio_filepath": "a.wav", "duration": 10.0, "time": 2.0, "text": "a b", "pred_text": "a"}
    (tmp_path / "MODEL_x.jsonl").write_text(json.dumps(row) + "\n")
    assert run("score", tmp_path / "MODEL_x.jsonl", "-o", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "scores.json").read_text())["runs"]["MODEL_x"]
    assert (found["wer"]["rate"], found["rtfx"], found["wer"]["low"]) == (0.5, 5.0, None)


def test_a_slice_of_many_hours_is_copied_without_being_held(tmp_path, monkeypatch):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, 40_000).astype(np.float32)
    io.save(tmp_path / "day.wav", sound, 16_000)
    monkeypatch.setattr(io, "MOST_SAMPLES", 8000)
    (row,) = own_files.cut([Row("a", tmp_path / "day.wav", start=1.0, duration=1.25)], tmp_path / "clips")
    monkeypatch.undo()
    assert (row.start, row.audio.parent.name) == (0.0, "clips")
    np.testing.assert_allclose(io.load(row.audio).samples, sound[16_000:36_000], atol=1e-4)


def test_slices_add_up_to_the_whole_and_small_ones_get_no_rate(manifest, opened, tmp_path):
    arguments = ("--data", manifest, "-o", tmp_path / "out", "--slice-by", "room", "--min-n", 3)
    assert run("asr", *arguments) == 0
    found = json.loads((tmp_path / "out" / "scores.json").read_text())["runs"]["base"]
    room = found["slices"]["room"]
    assert {name: cell["n"] for name, cell in room.items()} == {"a": 3, "b": 2}
    assert room["a"]["wer"]["substitutions"] == found["wer"]["substitutions"] == 1
    assert room["b"]["wer"] is None


def test_slices_stand_in_order():
    assert slices.in_order({"over 30 s", "10 to 30 s", "2 to 5 s"}) == ["2 to 5 s", "10 to 30 s", "over 30 s"]
    assert slices.in_order(["fr", "de", "en"]) == ["de", "en", "fr"]


def test_numeric_columns_are_sliced_by_quarters():
    rows = [
        predictions.Prediction(str(at), "", 1.0, 0.1, "a", "a", columns={"snr": float(at)})
        for at in range(40)
    ]
    rule = normaliser("none")
    found = scores([Run("r", score(rows, rule))], rule, Options(slice_by=("snr",), min_n=1, resamples=50))
    cells = found["runs"]["r"]["slices"]["snr"]
    assert [cell["n"] for cell in cells.values()] == [10, 10, 10, 10]


def test_intervals_are_drawn_over_speakers_only_when_there_are_enough():
    def rows(speakers):
        return [
            predictions.Prediction(str(at), f"{at}.wav", 1.0, 0.1, "a", "a", speaker=f"s{at % speakers}")
            for at in range(30)
        ]

    rule = normaliser("none")
    units = [
        scores([Run("r", score(rows(count), rule))], rule, Options(resamples=50))["bootstrap"]["unit"]
        for count in (1, 10)
    ]
    assert units == ["audio", "speaker"]


@pytest.mark.parametrize("lang", ["zh", ""])
def test_text_without_spaces_puts_characters_first(lang, tmp_path, capsys):
    rule = normaliser("auto")
    row = predictions.Prediction("a", "", 1.0, 0.1, "你好，世界", "你好世间", lang=lang)
    worse = predictions.Prediction("a", "", 1.0, 0.1, "你好，世界", "你们世间", lang=lang)
    found = scores([Run("r", score([row], rule)), Run("s", score([worse], rule))], rule)
    assert found["metric"] == "cer"
    assert found["runs"]["r"]["cer"]["rate"] == 0.25
    head, line, *_ = table(found).splitlines()
    assert head.index("CER %") < head.index("WER %")
    assert line.split()[2] == "25.00"
    for name, one in (("old", row), ("new", worse)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "preds.jsonl").write_text(predictions.dumps([one]))
        assert run("score", tmp_path / name, "-o", tmp_path / name) == 0
    old, new = (tmp_path / name / "scores.json" for name in ("old", "new"))
    assert run("check", new, "--baseline", old, "--max-regression", "24") == 1
    assert run("check", new, "--baseline", old, "--max-regression", "26") == 0
    capsys.readouterr()
    assert run("diff", tmp_path / "old", tmp_path / "new") == 0
    assert "  +1  a" in capsys.readouterr().out


@pytest.mark.parametrize(("known", "rate", "met"), [("en", 0.0, "english"), ("", 0.5, "marks")])
def test_rows_without_language_are_english_where_a_model_knows_no_other(known, rate, met, tmp_path, capsys):
    row = predictions.Prediction("a", "", 1.0, 0.1, "twenty-one dollars", "$21")
    for name, language in (("one", known), ("two", "")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "preds.jsonl").write_text(predictions.dumps([row]))
        (tmp_path / name / "run.json").write_text(json.dumps({"config": {"language": language}}))
    assert run("score", tmp_path / "one", tmp_path / "two", "-o", tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert [bool(one["wer"]["rate"]) for one in found["runs"].values()] == [bool(rate)] * 2
    assert found["normaliser"]["met"] == {met: 1}
    assert f"auto {normaliser('auto').version}: {met} for 1 utterances" in capsys.readouterr().out
    assert f"<b>{met}</b> for 1 utterances" in (tmp_path / "out" / "report.html").read_text()


def test_a_transcriber_of_english_alone_says_so():
    def opened(**generation):
        backbone = SimpleNamespace(generation=SimpleNamespace(**generation))
        return SimpleNamespace(backbone=backbone, opened=SimpleNamespace(ctc=None))

    assert benchmark.only_language(opened(is_multilingual=False)) == "en"
    assert benchmark.only_language(opened(is_multilingual=True)) == ""
    assert benchmark.only_language(SimpleNamespace()) == ""


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (["--max-wer", "7.7"], 0),
        (["--max-wer", "7.6"], 1),
        (["--max-cer", "50", "--max-wer", "1"], 1),
        (["--run", "phone", "--max-wer", "0"], 0),
        (["--min-rtfx", "1e12"], 1),
        ([], 2),
        (["--run", "fone", "--max-wer", "5"], 2),
    ],
)
def test_check_exits_by_the_limits(limits, code, manifest, adapter, opened, tmp_path):
    out = tmp_path / "out"
    run("asr", "--data", manifest, "--adapter", adapter, "--base", "-o", out)
    run_named = [] if "--run" in limits else ["--run", "base"]
    assert run("check", out / "scores.json", *run_named, *limits) == code


def test_check_against_a_baseline_needs_one_normaliser(manifest, opened, tmp_path, capsys):
    run("asr", "--data", manifest, "-o", tmp_path / "old", "--normalizer", "none")
    run("asr", "--data", manifest, "-o", tmp_path / "new")
    new, old = tmp_path / "new" / "scores.json", tmp_path / "old" / "scores.json"
    assert run("check", new, "--baseline", new) == 0
    assert run("check", new, "--baseline", old) == 2
    assert "normaliser" in capsys.readouterr().err


def test_diff_lists_what_broke_first(manifest, adapter, opened, tmp_path, capsys):
    out = tmp_path / "out"
    run("asr", "--data", manifest, "--adapter", adapter, "--base", "-o", out)
    capsys.readouterr()
    assert run("diff", out / "phone", out / "base") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "0 better, 1 worse" in lines[0]
    assert lines[1].split() == ["+1", "u0"]


def test_two_adapters_of_one_name_keep_apart(tmp_path):
    folders = [tmp_path / name for name in ("a/phone", "b/phone", "c/base")]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "adapter.json").write_text(json.dumps({"backbone": {"id": "org/model"}}))
    named = benchmark.systems(True, [str(folder) for folder in folders])
    assert [system.name for system in named] == ["base", "phone", "phone-2", "base-2"]


def test_base_is_the_model_that_the_adapter_was_trained_on(adapter):
    base, adapted = benchmark.systems(True, [str(adapter)])
    assert (base.weights, adapted.weights) == ("org/model", None)
    assert benchmark.systems(True, [str(adapter)], weights="copy")[0].weights == "copy"
    assert benchmark.systems(False, [])[0].weights is None


@pytest.mark.parametrize(
    ("extra", "word"),
    [
        (["--normalizer", "whisper"], "whisper-en"),
        (["--context", "fitt"], "fit"),
        (["--adapter", "nowhere"], "adapter.json"),
        (["--adapter", "."], "adapter.json"),
        (["--slice-by", "rooom"], "'room'"),
        (["--degrade", "telefone"], "telephone"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(extra, word, manifest, opened, tmp_path, capsys):
    assert run("asr", "--data", manifest, "-o", tmp_path / "out", *extra) == 2
    assert word in capsys.readouterr().err
    assert not opened


def test_rows_without_text_are_refused(tmp_path, opened, capsys):
    io.save(tmp_path / "u0.wav", np.zeros(16_000, np.float32), 16_000)
    (tmp_path / "test.jsonl").write_text(json.dumps({"audio_filepath": "u0.wav"}))
    assert run("asr", "--data", tmp_path / "test.jsonl", "-o", tmp_path / "out") == 2
    assert "1 of 1 rows have no text" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ("", "no prediction"),
        ("[1]", "'text'"),
        ("{", "not JSON"),
        ('{"text": "a"}', "pred_text"),
        (
            '{"id": 1, "text": "a", "pred_text": ""}\n{"id": "1", "text": "a", "pred_text": ""}',
            "two predictions",
        ),
    ],
)
def test_bad_predictions_are_refused_with_their_line(content, word, tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text(content)
    assert run("score", tmp_path / "p.jsonl", "-o", tmp_path / "out") == 2
    assert word in capsys.readouterr().err


def test_predictions_survive_a_round_trip_with_any_text(tmp_path):
    row = predictions.Prediction(
        "a\u2028b", "x.wav", 1.5, 0.1, "line\none", 'q"\u2028', "en", "s", "e", {"n": 1}
    )
    (tmp_path / "preds.jsonl").write_text(predictions.dumps([row]))
    assert predictions.read(tmp_path / "preds.jsonl") == [row]


@pytest.mark.parametrize("arguments", [["--help"], ["asr", "--help"], ["asr", "--data", "x"]])
def test_help_and_usage_errors_import_nothing_heavy(arguments):
    code = (
        "import sys\nfrom speech_peft.bench.__main__ import main\ncode = main(sys.argv[1:])\n"
        "assert not {'torch', 'numpy', 'transformers', 'lightning'} & set(sys.modules)\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, check=False)
    assert done.returncode == (0 if "--help" in arguments else 2), done.stderr.decode()


# ---- from Python ------------------------------------------------------------------------------------


def test_evaluate_gives_the_numbers_of_the_command_as_an_object(manifest, adapter, opened, tmp_path):
    assert run("asr", "--data", manifest, "--adapter", adapter, "--base", "-o", tmp_path / "out") == 0
    written = json.loads((tmp_path / "out" / "scores.json").read_text())
    found = evaluate(manifest, adapter, base=True)
    assert list(found) == ["base", "phone"]
    for name, system in found.items():
        assert system.wer == Rate(*(written["runs"][name]["wer"][key] for key in ("rate", "low", "high")))
        assert (system.n, system.failed) == (len(TEXTS), 0)
    assert found["base"].utterances[0].prediction.pred_text == "press one for cells"
    assert found.scores["comparisons"] == written["comparisons"]
    assert "base → phone" in str(found)
    with pytest.raises(ConfigError, match=r"base, phone were measured; say whose.*found\['base'\]"):
        _ = found.wer
    with pytest.raises(KeyError, match=r"no system is called 'fone'\. Did you mean 'phone'"):
        found["fone"]


def test_passes_and_candidates_are_auto_or_a_number_and_others_are_refused_before_anything_is_opened(
    manifest, opened, monkeypatch, tmp_path
):
    asked = []
    scripted = benchmark.open_transcriber
    monkeypatch.setattr(
        benchmark, "open_transcriber", lambda *both: (asked.append(both[1]), scripted(*both))[1]
    )
    assert run("asr", "--data", manifest, "--steps", "auto", "--candidates", "3", "-o", tmp_path / "out") == 0
    assert [(one.steps, one.candidates) for one in asked] == [("auto", 3)]
    with pytest.raises(ConfigError, match="steps: 'soon' is none"):
        evaluate(manifest, steps="soon")
    assert run("asr", "--data", manifest, "--candidates", "0", "-o", tmp_path / "other") == 2
    assert len(opened) == 1


def test_of_one_system_the_scores_are_those_of_the_evaluation(manifest, adapter, opened, capsys):
    found = evaluate(manifest, adapter)
    assert found.wer == found["phone"].wer == Rate(0.0, 0.0, 0.0)
    assert len(found.utterances) == len(TEXTS)
    assert capsys.readouterr().out == ""


def test_records_with_sound_are_a_test_set_too_and_slices_of_it_are_known(manifest, opened, tmp_path):
    rows = [replace(row, extra={**row.extra, "take": "one"}) for row in manifests.read(manifest)]
    found = evaluate(rows, slice_by=["take"], min_n=1, out=tmp_path / "out")
    assert found.scores["runs"]["base"]["slices"]["take"]["one"]["n"] == len(TEXTS)
    assert (tmp_path / "out" / "report.html").is_file()
    with pytest.raises(ConfigError, match="colour"):
        evaluate(rows, slice_by=["colour"])
    with pytest.raises(ConfigError, match="data: expected records with a column of sound, got int"):
        evaluate([1])
