"""The guard of `restore` around any system: what it made, mixed with what came as far as the guard lets it.

One way for all systems, ours included: a comparison of a guarded one with others that are not says nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from speech_peft.audio import io
from speech_peft.audio.manifest import Row
from speech_peft.audio.windows import chunks
from speech_peft.bench import own_files
from speech_peft.bench.runs.restore import Made
from speech_peft.restore.blend import Mixture
from speech_peft.restore.guard import Guard
from speech_peft.restore.playback import clips_of, spread
from speech_peft.restore.result import Restored
from speech_peft.restore.seams import RATE
from speech_peft.restore.tape import Tape
from speech_peft.restore.witnesses import Samples

SUFFIX = "_guarded"


def guarded(made: Made, rows: Sequence[Row], guard: Guard, folder: Path) -> Made:
    """The files of a system after the guard, in `folder`; what it could not make stays an error."""
    folder.mkdir(parents=True, exist_ok=True)
    files: dict[str, Path] = {}
    reports: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row.id in made.files:
            files[row.id] = own_files.own_file(row, folder)
            came, wet = (io.load(path, RATE).samples for path in (row.audio, made.files[row.id]))
            samples, result = kept(came, wet, guard)
            io.save(files[row.id], samples, RATE, "FLOAT")
            reports[row.id] = replace(result, path=str(row.audio), id=row.id).report()
    return replace(made, name=made.name + SUFFIX, files=files, reports=reports)


def kept(came: Samples, made: Samples, guard: Guard) -> tuple[Samples, Restored]:
    """What the guard lets pass of a restored recording at 16 kHz, and its report."""
    length = len(came)
    tapes = dry, wet = Tape(1), Tape(1)
    for tape, samples in zip(tapes, (came, made), strict=True):
        tape.add(samples[:length, None])
    mixture = Mixture(dry, wet, length, RATE, np.asarray(chunks.detector("silero")(came)))
    spans = spread(mixture, guard.options.seconds)

    def mix(strength: float) -> tuple[list[Samples], float | None, int]:
        blend = mixture.at(strength)
        return clips_of(mixture, blend, spans), blend.level_db, len(made) - length

    asked = 1.0 if mixture.came.any() else 0.0  # silence stays silence
    strength, report = guard.judge(asked, mix, clips_of(mixture, mixture.at(0.0), spans))
    blend = mixture.at(strength)
    samples = mixture.read(blend, 0, length)[:, 0]
    for tape in tapes:
        tape.close()
    about = Restored(
        "", sample_rate=RATE, source_rate=RATE, channels=1, length=length, duration=length / RATE
    )
    return samples, replace(about, strength=strength, level_db=blend.level_db, guard=report)
