"""A folder in, a folder out: what to do, doing it, and the record of it. It knows nothing of models.

Outputs appear under their final names complete or not at all, and the ledger gets its line after them; so a
run that is killed anywhere is continued by running it again. One bad file is a row with the reason.
"""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..audio.atomic import finish, sweep, write_bytes, write_text
from ..errors import ConfigError, SpeechPeftError
from .inputs import Job, gather
from .ledger import FOLDER, Entry, Ledger, append, fingerprint, settings_hash
from .progress import Progress

DONE, PARTIAL, FAILED, INTERRUPTED = 0, 3, 1, 130


@dataclass(frozen=True)
class Outcome:
    """What became of one job: the content of its files by extension, or an error.

    A file too large to hold is a Path, written whole under a temporary name on the file system of the output.
    """

    job: Job
    files: Mapping[str, str | bytes | Path] = field(default_factory=dict)
    audio_seconds: float = 0.0
    seconds: float = 0.0
    truncated: bool = False
    error: str | None = None
    stage: str = ""


Work = Callable[[Iterable[Job]], Iterator[Outcome]]
"""Takes jobs and yields the outcome of each when it has it, in any order; may look ahead to fill batches."""


@dataclass(frozen=True)
class Policy:
    """How a run treats what is there already and what goes wrong."""

    overwrite: bool = False
    retry_failed: bool = False
    """Only what failed in the run before."""
    fail_fast: bool = False
    name_template: str = "{relpath}.{ext}"
    """`relpath` (no suffix), `stem`, `suffix` (of the input, with its dot) and `ext` (of the output)."""


@dataclass(frozen=True)
class Step:
    """What will happen to a job, and why."""

    job: Job
    action: str
    """run, skip or refuse"""
    why: str
    outputs: tuple[str, ...] = ()
    bytes: int = 0


@dataclass(frozen=True)
class Plan:
    """All steps of a run, decided before any model is loaded."""

    out: Path
    steps: tuple[Step, ...]
    settings: str
    ledger: Ledger

    def of(self, action: str) -> list[Step]:
        return [step for step in self.steps if step.action == action]

    def __str__(self) -> str:
        return "\n".join(f"{step.action:7}{step.job.audio}  ({step.why})" for step in self.steps)


def plan(
    inputs: Sequence[str | Path],
    out: Path,
    extensions: Sequence[str],
    settings: Mapping[str, Any],
    suffixes: frozenset[str],
    policy: Policy | None = None,
) -> Plan:
    """What a run would do; touches nothing."""
    policy = policy or Policy()
    ledger, key = Ledger(out), settings_hash(settings)
    jobs = gather(inputs, suffixes)
    if policy.retry_failed:
        jobs = [job for job in jobs if (e := ledger.entries.get(job.id)) and e.status == "failed"]
    return Plan(
        out, tuple(_unique([_step(job, ledger, key, extensions, policy) for job in jobs], out)), key, ledger
    )


def _step(job: Job, ledger: Ledger, settings: str, extensions: Sequence[str], policy: Policy) -> Step:
    if job.problem and "same name" in job.problem and "{suffix}" in policy.name_template:
        job = Job(job.audio, job.relpath.removesuffix(job.audio.suffix), job.start, job.duration)
    outputs = tuple(_name(job, extension, policy.name_template) for extension in extensions)
    if job.problem:
        return Step(job, "refuse", job.problem, outputs)
    print_ = fingerprint(job.audio, job.start, job.duration)
    why = "overwrite" if policy.overwrite else ledger.why_not_done(job.id, print_, settings, list(outputs))
    size = job.audio.stat().st_size
    return Step(job, "run" if why else "skip", why or "done", outputs, size)


def _name(job: Job, extension: str, template: str) -> str:
    try:
        name = template.format(
            relpath=job.relpath, stem=Path(job.relpath).name, suffix=job.audio.suffix, ext=extension
        )
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            f"name-template: {template!r} has no field {error}; there are relpath, stem, suffix, ext"
        ) from error
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ConfigError(f"name-template: {name!r} would lie outside the output folder")
    return name


def _unique(steps: Iterable[Step], out: Path) -> Iterator[Step]:
    """Refuse a step whose output is another's, or is one of the inputs."""
    steps = list(steps)
    owners = Counter(name for step in steps if step.action != "refuse" for name in step.outputs)
    inputs = {step.job.audio.absolute() for step in steps}
    for step in steps:
        if step.action != "refuse":
            for name in step.outputs:
                if (out / name).absolute() in inputs:
                    step = Step(step.job, "refuse", f"its output {name} would replace an input", step.outputs)
                elif owners[name] > 1:
                    step = Step(step.job, "refuse", f"another input has the same output {name}", step.outputs)
        yield step


def run(plan: Plan, work: Work, progress: Progress, policy: Policy | None = None) -> int:
    """Carry a plan out; returns the exit code. Ledger, errors and summary lie in `OUT/.speech_peft`."""
    with _sigterm_as_ctrl_c():
        return _Run(plan, progress, policy or Policy())(work)


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """A scheduler that ends a run gets what Ctrl-C gets: the summary, and exit code 130."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _Run:
    def __init__(self, plan: Plan, progress: Progress, policy: Policy):
        self.plan, self.progress, self.policy = plan, progress, policy
        self.folder = plan.out / FOLDER
        self.steps = {step.job: step for step in plan.steps}
        self.counts = Counter(skipped=len(plan.of("skip")))
        self.audio_seconds = 0.0
        self.started = time.monotonic()

    def __call__(self, work: Work) -> int:
        self.folder.mkdir(parents=True, exist_ok=True)
        sweep(self.plan.out)  # what killed runs left behind
        write_text(self.folder / "errors.jsonl", "")
        todo = self.plan.of("run")
        self.progress.start(len(todo), sum(step.bytes for step in todo), self.counts["skipped"])
        interrupted = False
        try:
            for step in self.plan.of("refuse"):
                self._commit(Outcome(step.job, error=step.why, stage="plan"))
            if todo and not self._stop():
                for outcome in work(step.job for step in todo):
                    self._commit(outcome)
                    if self._stop():
                        break
        except KeyboardInterrupt:
            interrupted = True
        code = INTERRUPTED if interrupted else self._code()
        summary = self._summary(code)
        write_text(self.folder / "summary.json", _json(summary))
        self.progress.end(summary)
        return code

    def _stop(self) -> bool:
        return self.policy.fail_fast and self.counts["failed"] > 0

    def _commit(self, outcome: Outcome) -> None:
        step = self.steps[outcome.job]
        job, outputs, error = outcome.job, {}, outcome.error
        if error is None:
            try:
                outputs = self._write(outcome)
            except OSError as failure:
                error, outputs = f"cannot be written: {failure.strerror or failure}", {}
        status = "failed" if error else "truncated" if outcome.truncated else "ok"
        entry = Entry(
            id=job.id,
            audio=str(job.audio),
            status=status,
            fingerprint=fingerprint(job.audio, job.start, job.duration),
            settings=self.plan.settings,
            outputs=outputs,
            audio_seconds=round(outcome.audio_seconds, 3),
            seconds=round(outcome.seconds, 4),
            error=error,
            stage=outcome.stage or ("write" if error else ""),
        )
        self.plan.ledger.add(entry)
        if error:
            row = {"path": str(job.audio), "stage": entry.stage, "error": error, "id": job.id}
            append(self.folder / "errors.jsonl", row)
        self.counts[status] += 1
        self.audio_seconds += outcome.audio_seconds
        self.progress.file(str(job.audio), status, outcome.audio_seconds, step.bytes, error)

    def _write(self, outcome: Outcome) -> dict[str, int]:
        sizes = {}
        for extension, content in outcome.files.items():
            name = _name(outcome.job, extension, self.policy.name_template)
            if isinstance(content, Path):
                sizes[name] = content.stat().st_size
                finish(content, self.plan.out / name)
                continue
            raw = content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content
            write_bytes(self.plan.out / name, raw)
            sizes[name] = len(raw)
        return sizes

    def _code(self) -> int:
        good = self.counts["ok"] + self.counts["truncated"] + self.counts["skipped"]
        return DONE if not self.counts["failed"] else PARTIAL if good else FAILED

    def _summary(self, code: int) -> dict[str, Any]:
        seconds = time.monotonic() - self.started
        names = ("ok", "truncated", "skipped", "failed")
        return {
            **{name: self.counts[name] for name in names},
            "not_done": max(0, len(self.plan.steps) - sum(self.counts[name] for name in names)),
            "audio_seconds": round(self.audio_seconds, 3),
            "seconds": round(seconds, 3),
            "rtfx": round(self.audio_seconds / seconds, 2) if seconds else None,
            "settings": self.plan.settings,
            "exit_code": code,
        }


def _json(summary: Mapping[str, Any]) -> str:
    import json

    return json.dumps(summary, indent=2) + "\n"


def failed(job: Job, error: BaseException, stage: str) -> Outcome:
    """The outcome of a job that raised: our own messages as they are, a bug with its type."""
    text = str(error) if isinstance(error, SpeechPeftError) else f"{type(error).__name__}: {error}"
    return Outcome(job, error=text.removeprefix(f"{job.audio}: "), stage=stage)
