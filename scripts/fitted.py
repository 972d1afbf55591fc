"""One adapter of Whisper learned for a measurement; what has ended is not trained again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import speech_peft as sp
from speech_peft.core.saved.save import read


def fitted(
    out: Path,
    adapter: Mapping[str, Any],
    data: Mapping[str, Any],
    steps: int,
    weights: str,
    *,
    lr: float = 1e-3,
    warmup: int = 20,
    seed: int = 0,
    language: str | None = None,
) -> Path:
    """The folder of an adapter that is called as the folder `out` of its run, at `context: fit`.

    `data` is that of a recipe; a `language` is one that all of it is in.
    """
    name = out.name
    folder = out / name
    if not folder.exists():
        spoken = {} if language is None else {"language": language}
        sp.fit(
            out=str(out),
            seed=seed,
            backbone={"name": "whisper", "weights": weights, "context": "fit"},
            adapters={name: dict(adapter)},
            train=[name],
            task={"name": "asr", "decoder": "whisper", **spoken},
            data=dict(data),
            optim={"lr": lr, "warmup": warmup},
            trainer={"max_steps": steps},
        )
        print(f"{name}: {read(folder).method!r}", flush=True)
    return folder
