"""What the comparisons share: peers in processes and environments of their own, and the file of results."""

import json
import subprocess
import time
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any


class Side:
    """A worker process: one JSON line in, one JSON line out."""

    def __init__(self, *command: object):
        self.process = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ready = self._answer()

    def ask(self, **request: object) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args}: ended without an answer (exit {self.process.wait()})")
        return json.loads(line)

    def close(self) -> None:
        self.process.communicate()


def environment(home: Path, packages: Sequence[str]) -> Path:
    """The interpreter of a peer's environment, made at the first call and when its packages change."""
    python, stamp, wanted = home / "bin" / "python", home / "complete", "\n".join(packages)
    if not stamp.exists() or stamp.read_text() not in ("", wanted):  # "": of before there was a list in it
        print(f"installing {packages[0]} into its own environment ...", flush=True)
        venv.create(home, with_pip=True, clear=True)
        install = [python, "-m", "pip", "install", "--quiet", "--no-compile", *packages]
        subprocess.run(install, check=True)
        stamp.write_text(wanted)
    return python


def record(result: dict[str, Any], out: Path) -> None:
    """Print one result and append it to the results file."""
    out.mkdir(parents=True, exist_ok=True)
    result = {"date": time.strftime("%Y-%m-%d"), **result}
    with (out / "results.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")
    for key, value in result.items():
        print(f"{key:>24}  {value:.4g}" if isinstance(value, float) else f"{key:>24}  {value}")
    print()
