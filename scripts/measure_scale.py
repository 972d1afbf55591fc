"""What shards, Ray and stores do at scale: `python scripts/measure_scale.py PART --out FOLDER`.

The model is a stand-in: it decodes each clip and writes the digest of its samples, with some milliseconds
of arithmetic for the work. Parts: `rows` (a million), `overhead` (Ray beside two plain processes), `kills`,
`poison`. Each prints one object. `overhead --rows ROWS --words "--adapter A --engine ct2"` is about
`speech-peft transcribe ROWS` with these words, in place of the stand-in.
"""

# pyright: reportMissingParameterType=false, reportMissingTypeArgument=false
import argparse
import hashlib
import json
import os
import random
import resource
import shlex
import signal
import subprocess
import sys
import tarfile
import time
from collections import Counter
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from speech_peft.audio import io
from speech_peft.folders.outcomes.outcome import Outcome
from speech_peft.folders.progress import Quiet
from speech_peft.folders.runner import Policy
from speech_peft.shards import look, marks, run
from speech_peft.shards.asked import Asked
from speech_peft.shards.blocks import Cut
from speech_peft.shards.work import Task

SUFFIXES = frozenset({".wav"})
MILLISECONDS = 20.0


def open_work(milliseconds=MILLISECONDS):
    """Decodes, and computes for a while."""
    matrix = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)

    def work(jobs):
        for job in jobs:
            poison(job.relpath)
            samples, until = io.load(job.audio).samples, time.process_time() + milliseconds / 1000
            while time.process_time() < until:
                np.matmul(matrix, matrix)
            yield Outcome(job, {"txt": hashlib.sha256(samples.tobytes()).hexdigest()}, len(samples) / 16_000)

    return SimpleNamespace(notes=[]), work


def open_nothing():
    """Neither decodes nor computes: what is left is the package's own work for a row."""

    def work(jobs):
        return (Outcome(job, {"txt": job.relpath}, 1.0) for job in jobs)

    return SimpleNamespace(notes=[]), work


def poison(name: str) -> None:
    if name.startswith("crash"):
        os.abort()
    if name.startswith("hang"):
        time.sleep(86_400)
    if name.startswith("memory"):
        os.kill(os.getpid(), signal.SIGKILL)  # what the kernel does to a process that takes all memory


def task(out: str, shards: int, opened=open_work) -> Task:
    return Task(out, marks.Terms("transcribe", "measured", shards, "tar", ("txt",)), opened)


def worker(
    rows: str, out: str, shards: int, on: str, row_seconds: float, milliseconds: float = MILLISECONDS
) -> int:
    """One process of a run, or the driver of actors."""
    cut, made = Cut([rows], SUFFIXES, shards), task(out, shards, partial(open_work, milliseconds))
    if on == "ray":
        from speech_peft.shards import on_ray

        asked = Asked(shards, on="ray", workers=2, row_seconds=row_seconds)
        return on_ray.run(made, cut, Quiet(), Policy(), asked)
    return run.run(made, cut, Quiet(), Policy())


def clips(folder: Path, count: int, names=lambda number: f"row-{number:04}") -> Path:
    """Clips of half a second, each of its own."""
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    random_ = np.random.default_rng(0)
    lines = []
    for number in range(count):
        io.save(
            folder / f"clips/{number}.wav", 0.1 * random_.standard_normal(8000).astype(np.float32), 16_000
        )
        lines.append(json.dumps({"id": names(number), "audio": f"clips/{number}.wav"}) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines))
    return folder / "rows.jsonl"


def start(
    rows, out, shards, on="here", row_seconds=60.0, milliseconds=MILLISECONDS, words=None
) -> subprocess.Popen:
    """A process of the stand-in; with `words`, of `speech-peft transcribe`."""
    if words is None:
        own = [__file__, "worker", "--rows", str(rows), "--milliseconds", str(milliseconds)]
    else:
        own = ["-m", "speech_peft", "transcribe", str(rows), "--threads", "1", *shlex.split(words)]
    common = ["--out", str(out), "--shards", str(shards), "--on", on, "--row-seconds", str(row_seconds)]
    return subprocess.Popen([sys.executable, *own, *common], stderr=subprocess.DEVNULL)


def texts(out: Path) -> dict[str, str]:
    found = {}
    for shard in sorted(out.glob("*.tar")):
        with tarfile.open(shard) as file:
            for member in file:
                assert member.name not in found, f"{member.name} twice"
                found[member.name] = file.extractfile(member).read().decode()  # type: ignore[union-attr]
    return found


def watched(*processes: subprocess.Popen) -> dict:
    """What processes take until they end, with all that they start."""
    psutil = import_module("psutil")
    began, taken = time.monotonic(), {}
    while any(one.poll() is None for one in processes):
        for one in processes:
            try:
                first = psutil.Process(one.pid)
                for each in [first, *first.children(recursive=True)]:
                    times = each.cpu_times()
                    taken[each.pid] = times.user + times.system
            except psutil.Error:
                continue
        time.sleep(0.5)
    return {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(sum(taken.values()), 1)}


def overhead(folder: Path, count: int, rows: str | None = None, words: str | None = None) -> dict:
    """One process, two that share the folder, and two actors, one after the other."""
    path = Path(rows) if rows else clips(folder, count)
    found = {
        "one": watched(start(path, folder / "one", 40, words=words)),
        "two": watched(*[start(path, folder / "two", 40, words=words) for _ in range(2)]),
        "ray": watched(start(path, folder / "ray", 40, "ray", words=words)),
    }
    for name, told in found.items():
        summary = json.loads((folder / name / ".speech_peft/summary.json").read_text())
        told["seconds_after_opening"] = round(summary["seconds"] - summary["opening_seconds"], 1)
    one = texts(folder / "one")
    equal = one == texts(folder / "ray") == texts(folder / "two")
    return {"rows": len(one), "equal": equal, **found}


def kills(folder: Path, count: int, milliseconds: float = MILLISECONDS) -> dict:
    """kill -9 of actors 20 times and of the driver 5 times, at random moments with work done in between.

    A driver may also end by itself, when too many actors are killed while they open: it is started again.
    """
    psutil = import_module("psutil")

    rows, out, chance = clips(folder, count), folder / "out", random.Random(0)
    left = Counter(actor=20, driver=5)
    again = partial(start, rows, out, 100, "ray", milliseconds=milliseconds)
    driver, runs, began = again(), 1, time.monotonic()
    done_by, done = [], 0
    while driver.poll() is None or (driver.returncode and runs < 20):
        if driver.poll() is not None:
            driver, runs = again(), runs + 1
        time.sleep(chance.uniform(0.5, 2.0))
        try:
            below = psutil.Process(driver.pid).children(recursive=True)
            actors = [
                one for one in below if "Worker" in " ".join(one.cmdline()) and "ray::" in one.cmdline()[0]
            ]
        except (psutil.Error, IndexError):
            continue
        if not actors or len(list(out.glob("*.tar"))) == done:
            continue
        done = len(list(out.glob("*.tar")))
        if left["actor"] and (left["actor"] % 4 or left["driver"] * 4 <= left["actor"] - 4):
            chance.choice(actors).kill()
            left["actor"] -= 1
            said = f"{time.monotonic() - began:.0f} s: left to kill {dict(left)}; {done} shards are there"
            print(said, file=sys.stderr, flush=True)
        elif left["driver"]:
            driver.kill()
            driver.wait()
            left["driver"] -= 1
            done_by.append(done)
            for one in below:
                one.kill() if one.is_running() else None
            driver, runs = again(), runs + 1
    before = {name.name: name.stat().st_mtime_ns for name in out.glob("*.tar")}
    further = worker(str(rows), str(out), 100, "here", 60)
    after = {name.name: name.stat().st_mtime_ns for name in out.glob("*.tar")}
    found = texts(out)
    worker(str(rows), str(folder / "one"), 100, "here", 60, 0)
    return {
        "rows": count,
        "killed": {"actors": 20 - left["actor"], "drivers": 5 - left["driver"]},
        "exit_code": driver.returncode,
        "exit_code_of_a_further_run": further,
        "drivers": runs,
        "further_run_wrote": sum(after[name] != before.get(name) for name in after),
        "problems": list(look.problems(out)),
        "equal_to_one_process": found == texts(folder / "one"),
        "shards_done_when_drivers_were_killed": done_by,
        "seconds": round(time.monotonic() - began, 1),
    }


def poisoned(folder: Path, count: int) -> dict:
    kinds = {
        places: kind
        for kind, at in (("crash", 97), ("hang", 501), ("memory", 883))
        for places in (at, at + 7, at + 300)
    }
    kinds[1777] = "crash"
    rows = clips(folder, count, lambda number: f"{kinds.get(number, 'row')}-{number:04}")
    began = time.monotonic()
    driver = start(rows, folder / "out", 100, "ray", row_seconds=8)
    driver.wait()
    found = look.status(folder / "out")
    errors = [
        json.loads(line) for line in (folder / "out/.speech_peft/errors.jsonl").read_text().splitlines()
    ]
    return {
        "rows": count,
        "exit_code": driver.returncode,
        "ok": found.ok,
        "quarantined": sorted(row["id"] for row in errors if row["stage"] == "quarantine"),
        "others_failed": sum(row["stage"] != "quarantine" for row in errors),
        "problems": list(look.problems(folder / "out")),
        "seconds": round(time.monotonic() - began, 1),
    }


def million(folder: Path, count: int) -> dict:
    """The stand-in neither decodes nor computes here: it is the driver that is measured."""
    rows = clips(folder, 1)
    with open(folder / "rows.jsonl", "w") as file:
        for number in range(count):
            file.write(json.dumps({"id": f"row-{number:07}", "audio": "clips/0.wav"}) + "\n")
    memory, began = [], time.monotonic()

    class Watched(Quiet):
        first = None

        def file(self, path, status, seconds, bytes, error) -> None:
            self.done += 1
            self.first = self.first or time.monotonic() - began
            if self.done % max(1, count // 20) == 0:
                memory.append(int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20)

    shown = Watched()
    code = run.run(
        task(str(folder / "out"), 1000, open_nothing), Cut([str(rows)], SUFFIXES, 1000), shown, Policy()
    )
    whole, began_look = time.monotonic() - began, time.monotonic()
    found = look.status(folder / "out")
    return {
        "rows": count,
        "exit_code": code,
        "ok": found.ok,
        "first_result_seconds": round(shown.first or 0.0, 3),
        "seconds": round(whole, 1),
        "cpu_seconds": round(resource.getrusage(resource.RUSAGE_SELF).ru_utime, 1),
        "megabytes_by_twentieth": memory,
        "status_seconds": round(time.monotonic() - began_look, 3),
    }


PARTS = {"rows": million, "overhead": overhead, "kills": kills, "poison": poisoned}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=[*PARTS, "worker"])
    parser.add_argument("--out", required=True)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--rows")
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--on", default="here")
    parser.add_argument("--row-seconds", type=float, default=60.0)
    parser.add_argument("--milliseconds", type=float, default=MILLISECONDS, help="of the stand-in, for a row")
    parser.add_argument("--words", help="of `speech-peft transcribe`, for overhead of real weights")
    asked = parser.parse_args()
    if asked.part == "worker":
        given = asked.rows, asked.out, asked.shards, asked.on, asked.row_seconds, asked.milliseconds
        raise SystemExit(worker(*given))
    folder = Path(asked.out)
    folder.mkdir(parents=True)
    more = {
        "overhead": {"rows": asked.rows, "words": asked.words},
        "kills": {"milliseconds": asked.milliseconds},
    }
    found = PARTS[asked.part](folder, asked.count, **more.get(asked.part, {}))
    print(json.dumps({"part": asked.part, **found}), flush=True)


if __name__ == "__main__":
    main()
