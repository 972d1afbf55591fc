"""`bench restore`: from pairs to a page, with a restorer and a judge that answer from a script."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from speech_peft.audio import io
from speech_peft.bench import __main__ as bench
from speech_peft.bench.runs import restore as benchmark
from speech_peft.predictions import restorations

RATE = 16_000
TEXTS = ["press one for sales", "please hold the line", "goodbye"]
OWN = "si_sdr,lsd,loudness,clipping,length,wer,rtf"


def speech(number: int) -> np.ndarray:
    time = np.arange(RATE) / RATE
    voice = sum(np.sin(2 * np.pi * (110 + 20 * number) * n * time) / n for n in range(1, 9))
    return (0.1 * voice * np.clip(np.sin(2 * np.pi * 3 * time), 0, 1)).astype(np.float32)


@pytest.fixture
def pairs(tmp_path):
    """A folder of three pairs, 3 dB of noise above a clean voice, and its manifest."""
    lines = []
    for number, text in enumerate(TEXTS):
        clean = speech(number)
        noise = np.random.default_rng(number).standard_normal(RATE).astype(np.float32)
        noise *= np.sqrt(np.mean(clean**2)) / 2**0.5
        io.save(tmp_path / f"clean/u{number}.wav", clean, RATE)
        io.save(tmp_path / f"noisy/u{number}.wav", clean + noise, RATE)
        row = {"id": f"u{number}", "audio_filepath": f"noisy/u{number}.wav", "text": text}
        lines.append(json.dumps({**row, "target_audio": f"clean/u{number}.wav", "room": "ab"[number % 2]}))
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(lines))
    return path


class Scripted:
    """Gives half the noise back; `u2` fails."""

    about = {"decoder": "none"}  # noqa: RUF012

    def restore(self, inputs):
        for path in (job.audio for job in inputs):
            if path.stem.startswith("u2"):
                yield SimpleNamespace(
                    path=str(path), duration=1.0, error="is not speech", samples=None, seconds=0.1
                )
                continue
            given, clean = (
                io.load(one, None).samples for one in (path, path.parents[1] / "clean" / path.name)
            )
            yield SimpleNamespace(
                path=str(path),
                duration=1.0,
                error=None,
                samples=0.5 * (given + clean),
                sample_rate=RATE,
                seconds=0.25,
                report=lambda: {"strength": 0.5, "guard": {"taken": "weaker", "trials": []}},
            )


@pytest.fixture
def scripted(monkeypatch):
    monkeypatch.setattr(benchmark, "open_restorer", lambda adapter, settings: Scripted())

    def judge(weights, settings):
        def hear(files):
            words = {}
            for file in files:
                text = TEXTS[int(file.stem[1])]
                words[file] = text.replace("the", "a") if file.parent.name == "noisy" else text
            return words

        return hear

    monkeypatch.setattr(benchmark, "judge", judge)


def run(*arguments) -> int:
    return bench.main(["restore", *map(str, arguments)])


def test_a_restorer_is_run_measured_judged_and_heard(pairs, scripted, tmp_path, capsys):
    out = tmp_path / "out"
    assert run("--data", pairs, "--adapter", "mine=folder", "-o", out, "--metrics", OWN, "--min-n", 1) == 3
    found = json.loads((out / "scores.json").read_text())
    noisy, clean, mine = (found["runs"][name] for name in ("degraded", "clean", "mine"))
    assert noisy["figures"]["si_sdr"]["mean"] == pytest.approx(3, abs=0.5)
    assert mine["figures"]["si_sdr"]["mean"] == pytest.approx(9, abs=0.5)
    assert clean["figures"]["si_sdr"]["mean"] > 60
    assert (mine["n"], mine["failed"], mine["fell_back"]) == (3, 1, 2)
    assert mine["rtf"] == pytest.approx(0.6 / 2, abs=0.1)
    assert (noisy["wer"]["rate"], noisy["wer"]["insertions"]) == (pytest.approx(1 / 9), 0)
    assert mine["wer"]["deletions"] == 1  # what failed was not heard at all
    assert mine["wer_ratio"] == pytest.approx(1.0)
    (change,) = (one for one in found["comparisons"] if one["figure"] == "si_sdr")
    assert (change["better"], change["worse"], change["n"]) == (2, 0, 2)
    assert change["delta"] == pytest.approx(6.02, abs=0.1)
    assert found["metrics"]["wer"]["needs"] == "text"
    text = (out / "report.html").read_text()
    assert text.count("data:audio/mpeg") == 3 + 3 + 2
    assert "is not speech" in text
    assert "guard: weaker" in text
    shown = capsys.readouterr()
    assert "mine" in shown.out
    restored, *measured = shown.err.split("recordings to do")[1:]  # of every system, and how fast
    assert len(measured) == 3
    assert "failed: " in restored
    assert "is not speech" in restored
    assert "2 done, 1 failed; 0:03 audio in" in restored
    assert all("done; " in part and "failed: " not in part for part in measured)
    assert "fell back" in text
    rows = restorations.read(out / "mine" / "preds.jsonl")
    assert [row.id for row in rows] == ["u0", "u1", "u2"]
    assert rows[0].columns == {"room": "a"}
    assert rows[0].restored["guard"]["taken"] == "weaker"


def test_files_that_others_made_are_found_by_name_without_a_judge(pairs, tmp_path, capsys):
    for number in range(2):
        io.save(tmp_path / f"other/u{number}.flac", 0.5 * speech(number), RATE)
    out = tmp_path / "out"
    code = run("--data", pairs, "--restored", f"gate={tmp_path / 'other'}", "-o", out, "--metrics", OWN,
               "--judge", "none", "--min-n", 1, "--embed-mb", 0)  # fmt: skip
    assert code == 3
    gate = json.loads((out / "scores.json").read_text())["runs"]["gate"]
    assert gate["figures"]["loudness_change"]["mean"] < -6
    assert gate["wer"] is None
    assert gate["rtf"] is None
    assert "has no file called u2" in (out / "report.html").read_text()


def test_a_missing_package_is_n_a_with_the_reason_and_not_an_error(pairs, tmp_path, capsys, monkeypatch):
    from speech_peft.metrics import restoration_packages

    monkeypatch.setattr(
        restoration_packages, "missing", lambda module: f"the package {module} is not installed"
    )
    out = tmp_path / "out"
    assert run("--data", pairs, "-o", out, "--metrics", "dnsmos,estoi,si_sdr,pesq", "--judge", "none") == 0
    printed = capsys.readouterr()
    assert "dnsmos: n/a: the package speechmos.dnsmos is not installed" in printed.out
    assert "commercial use" in printed.err  # PESQ was asked for by name
    assert "pip install" in (out / "report.html").read_text()


def test_clean_recordings_are_degraded_the_same_way_each_time(pairs, tmp_path):
    steps = tmp_path / "steps.yaml"
    steps.write_text("[{kind: noise, snr: 6}]")
    means = []
    for name in ("one", "two"):
        arguments = ("--data", tmp_path / "clean", "--degrade", steps, "-o", tmp_path / name)
        assert run(*arguments, "--metrics", "si_sdr", "--judge", "none") == 0
        means.append(json.loads((tmp_path / name / "scores.json").read_text())["runs"]["degraded"]["figures"])
    assert means[0] == means[1]
    assert means[0]["si_sdr"]["mean"] == pytest.approx(6, abs=0.3)


def test_without_a_text_the_judges_own_of_the_clean_stands_for_it(pairs, scripted, tmp_path):
    out = tmp_path / "out"
    arguments = ("--data", tmp_path, "--metrics", "wer", "-o", out)
    assert run(*arguments) == 0  # a folder with noisy/ and clean/: pairs without texts
    rows = restorations.read(out / "degraded" / "preds.jsonl")
    assert {row.text_of for row in rows} == {"clean"}
    assert json.loads((out / "scores.json").read_text())["runs"]["degraded"]["wer"]["substitutions"] == 1


@pytest.fixture
def scored(pairs, scripted, tmp_path):
    out = tmp_path / "out"
    run("--data", pairs, "--adapter", "mine=folder", "-o", out, "--metrics", OWN, "--min-n", 1)
    return out


def test_predictions_scored_again_give_the_same_scores(scored, tmp_path, capsys):
    again = tmp_path / "again"
    folders = [str(scored / name) for name in ("degraded", "clean", "mine")]
    assert bench.main(["score", *folders, "-o", str(again), "--min-n", "1"]) == 0
    was, now = (json.loads((folder / "scores.json").read_text()) for folder in (scored, again))
    assert now["metrics"] == was["metrics"]
    assert now["comparisons"] == was["comparisons"]
    for name, one in was["runs"].items():
        assert now["runs"][name] == one
    assert "is not speech" in (again / "report.html").read_text()


def test_words_and_restorations_are_not_scored_together(scored, tmp_path, capsys):
    words = tmp_path / "preds.jsonl"
    words.write_text(json.dumps({"id": "u0", "audio_filepath": "u0.wav", "text": "a", "pred_text": "a"}))
    assert bench.main(["score", str(scored / "mine"), str(words), "-o", str(tmp_path / "x")]) == 2
    printed = capsys.readouterr().err
    assert "holds restorations" in printed
    assert "words; score them apart" in printed


def test_a_difference_names_what_failed_and_every_figure(scored, capsys):
    assert bench.main(["diff", str(scored / "degraded"), str(scored / "mine")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith("si_sdr: +6.0") and "2 better, 0" in line], lines
    assert any(line.startswith("WER: ") for line in lines)
    first = next(line for line in lines if "words  " in line)
    assert first.endswith("u2  is not speech")


@pytest.mark.parametrize(
    ("limits", "code", "printed"),
    [
        (["--min", "si_sdr=8", "--max", "wer_ratio=1.01"], 0, "ok   si_sdr 9"),
        (["--min-gain", "si_sdr=4"], 0, "ok   gain of si_sdr 6.0"),
        (["--min-gain", "si_sdr=7"], 1, "FAIL gain of si_sdr"),
        (["--max", "length_error=0", "--max", "wer=5"], 1, "FAIL wer 11.11, wanted <= 5.00"),
        (["--min", "dnsmos_ovrl=1"], 2, "there is no figure 'dnsmos_ovrl'"),
        (["--min", "si_sdr=high"], 2, "expected FIGURE=NUMBER"),
        (["--max-wer", "5"], 2, "use --min, --max and --min-gain"),
    ],
)
def test_limits_on_figures_and_on_gains_over_the_input(scored, limits, code, printed, capsys):
    assert bench.main(["check", str(scored / "scores.json"), *limits]) == code
    assert printed in "".join(capsys.readouterr())


def test_an_earlier_score_is_a_limit_on_the_leading_figure(scored, tmp_path, capsys):
    document = json.loads((scored / "scores.json").read_text())
    document["metric"] = "si_sdr"
    better = tmp_path / "better.json"
    better.write_text(json.dumps(document))
    (scored / "scores.json").write_text(json.dumps(document))
    mine = document["runs"]["mine"]["figures"]["si_sdr"]
    mine["mean"] += 1
    better.write_text(json.dumps(document))
    arguments = ["check", str(scored / "scores.json"), "--baseline", str(better)]
    assert bench.main([*arguments, "--max-regression", "1.1"]) == 0
    assert bench.main([*arguments, "--max-regression", "0.9"]) == 1
    assert "si_sdr against" in capsys.readouterr().out
