#!/usr/bin/env python
"""Speech damaged in some frequencies: knitting beside flat attention and a bottleneck, in a decoder.

    python scripts/measure_knitting_speech.py clean/train.jsonl clean/test.jsonl -o runs/knitting_speech

A small `map` decoder on states of Whisper's second block learns to take noise out of speech, and is frozen.
Then adapters of as many numbers each learn, in it, what it never heard: a notch of one octave, a tilt of 3
to 9 dB an octave either way, mains hum at -5 to 5 dB. `flat` is knitting whose attentions both see the whole
map. Of the test manifest each clip is damaged in each way once. Printed is SI-SDR of what comes out, and by
how much knitting is better clip by clip, with intervals of 95 % over clips drawn again; and the operations of
one adapter on three seconds. What has ended lies in the folder, and the same command goes on behind it:
`--device cuda --only-train` where there is a GPU, and without both where there is none.
"""

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measure_knitting import Flat, interval, operations_of
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchmetrics.functional.audio import scale_invariant_signal_distortion_ratio as si_sdr

from speech_peft.audio import io, manifest
from speech_peft.audio.degrade import Degrader, parse
from speech_peft.backbones.base import Backbone
from speech_peft.backbones.families import open_backbone
from speech_peft.core.context import Context
from speech_peft.core.site import Site
from speech_peft.decoders.spectral import CompressedSpectrum
from speech_peft.decoders.waveform import WaveformDecoder, build_decoder
from speech_peft.methods.knitting import Knitting
from speech_peft.opening.loading import DEFAULT_WEIGHTS
from speech_peft.registry import METHODS

RATE, SECONDS = 16_000, 3
NOISE: list[Mapping[str, Any]] = [{"kind": "noise", "snr": [0, 20]}]
DAMAGE: dict[str, list[Mapping[str, Any]]] = {
    "notch": [{"kind": "notch"}],
    "tilt": [{"kind": "tilt"}],
    "hum": [{"kind": "noise", "snr": [-5, 5], "colors": ["hum"]}],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("train")
    parser.add_argument("test")
    parser.add_argument("-o", "--out", type=Path, default=Path("runs/knitting_speech"))
    parser.add_argument("--weights", default=DEFAULT_WEIGHTS)
    parser.add_argument("--base-steps", type=int, default=1500, help="Of the decoder, on noise.")
    parser.add_argument("--steps", type=int, default=600, help="Of each adapter, on the damage.")
    parser.add_argument("--batch", type=int, default=8, help="Clips of three seconds a step.")
    parser.add_argument("--clips", type=int, default=200, help="Of the test manifest, at most.")
    parser.add_argument("--width", type=int, default=32, help="Channels that attend.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train-clips", type=int, help="Of the training manifest, at most.")
    parser.add_argument("--device", default="cpu", help="That learns; what is measured is so on the CPU.")
    parser.add_argument("--only-train", action="store_true", help="Measure nothing.")
    options = parser.parse_args()
    METHODS.register("flat")(Flat)
    options.out.mkdir(parents=True, exist_ok=True)
    backbone = open_backbone("whisper", options.weights, context="fit", layer=2)
    train, test = pieces(options.train, options.train_clips), pieces(options.test, options.clips)
    print(f"{len(train)} pieces of speech to learn from, {len(test)} to test", flush=True)
    base = options.out / "base.safetensors"
    decoder = fresh(backbone, options.seed)
    if not base.is_file():
        learn(backbone, decoder, train, {"noise": NOISE}, options.base_steps, options)
        save_file(decoder.state_dict(), base)
    found: dict[str, dict[str, np.ndarray]] = {}
    for name, adapter in {"none": None, **adapters(options.width)}.items():
        made = options.out / f"{name}.safetensors"
        decoder = fresh(backbone, options.seed)
        decoder.load_state_dict(load_file(base))
        if adapter is not None:
            torch.manual_seed(options.seed)
            decoder.adapt({"bands": adapter})
            if made.is_file():
                decoder.load_state_dict(load_file(made))
            else:
                learn(backbone, decoder, train, DAMAGE, options.steps, options)
                save_file(decoder.state_dict(), made)
        if options.only_train:
            continue
        own = sum(p.numel() for p in decoder.parameters() if p.requires_grad) if adapter else 0
        found[name] = tested(backbone, decoder, test, options.seed)
        means = {kind: round(float(values.mean()), 2) for kind, values in found[name].items()}
        print(name, f"{own:,} numbers", means, flush=True)
    if options.only_train:
        return
    table = summary(found)
    table["operations"] = operations(fresh(backbone, options.seed), options.width)
    print(json.dumps(table, indent=1))
    (options.out / "knitting_speech.json").write_text(json.dumps(table, indent=1))


def fresh(backbone: Backbone, seed: int) -> WaveformDecoder:
    torch.manual_seed(seed)
    return build_decoder(backbone.dim, backbone.frame_rate, name="map")


def pieces(data: str, most: int | None) -> list[np.ndarray]:
    """Three seconds of each row, from its beginning; shorter ones are left out."""
    found = []
    for row in manifest.listed(data):
        if most is not None and len(found) == most:
            break
        if row.duration is not None and row.duration < SECONDS:
            continue
        samples = io.load(row.audio, RATE, row.start, SECONDS).samples
        if len(samples) >= SECONDS * RATE:
            found.append(samples[: SECONDS * RATE] * np.float32(0.1 / max(np.abs(samples).max(), 1e-3)))
    return found


def adapters(width: int) -> dict[str, dict[str, Any]]:
    """Knitting, the same with flat attention, and the bottleneck of the nearest number of parameters."""
    channels = 64
    site = Site("layers.0.block", "block", "b", "b", channels, channels, bands=1)
    count = sum(p.numel() for p in Knitting(width=width).build(site, nn.Identity(), None).parameters())
    return {
        "knitting": {"method": "knitting", "width": width},
        "flat": {"method": "flat", "width": width},
        "bottleneck": {
            "method": "bottleneck",
            "sites": ["layers.*.block"],
            "width": round((count - channels) / (2 * channels + 1)),
        },
    }


def learn(
    backbone: Backbone,
    decoder: WaveformDecoder,
    clean: list[np.ndarray],
    damage: Mapping[str, list[Mapping[str, Any]]],
    steps: int,
    options: Any,
) -> None:
    backbone.module.to(options.device)
    decoder.to(options.device)
    own = [p for p in decoder.parameters() if p.requires_grad]
    optimiser, far, spent = (
        torch.optim.AdamW(own, 2e-3),
        CompressedSpectrum(RATE).to(options.device),
        time.process_time(),
    )
    ways = [Degrader(parse(how), options.seed) for how in damage.values()]
    draw = np.random.default_rng(options.seed)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 50) * (1 - step / steps)
        chosen = [
            (int(i), int(draw.integers(len(ways)))) for i in draw.integers(len(clean), size=options.batch)
        ]
        damaged = [ways[k](clean[i], RATE, id=f"{i}", epoch=step).samples for i, k in chosen]
        wanted = torch.from_numpy(np.stack([clean[i] for i, _ in chosen])).to(options.device)
        made = through(backbone, decoder, torch.from_numpy(np.stack(damaged)).to(options.device))
        loss = 4 * far(made, wanted) - si_sdr(made, wanted, zero_mean=True).clamp(max=30).mean() / 10
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(own, 1.0)
        optimiser.step()
        if step % 50 == 0 or step == steps - 1:
            print(
                f"  step {step}  loss {loss.item():.3f}  {time.process_time() - spent:.0f} CPU s", flush=True
            )
    backbone.module.to("cpu")
    decoder.to("cpu")


def through(backbone: Backbone, decoder: WaveformDecoder, damaged: Tensor) -> Tensor:
    lengths = torch.full((len(damaged),), damaged.shape[1], device=damaged.device)
    with torch.no_grad():
        states = backbone.encode(backbone.prepare(damaged, lengths)).states
    return decoder(states, damaged)


@torch.inference_mode()
def tested(
    backbone: Backbone, decoder: WaveformDecoder, clean: list[np.ndarray], seed: int
) -> dict[str, np.ndarray]:
    """SI-SDR of each clip, by damage; that of the damaged clip itself by `<damage>, heard`."""
    found = {}
    decoder.eval()
    for kind, how in DAMAGE.items():
        way = Degrader(parse(how), 90_210 + seed)  # a seed that nothing learns from
        damaged = torch.from_numpy(
            np.stack([way(x, RATE, id=f"test {i}").samples for i, x in enumerate(clean)])
        )
        wanted = torch.from_numpy(np.stack(clean))
        made = torch.cat([through(backbone, decoder, part) for part in damaged.split(8)])
        found[kind] = si_sdr(made, wanted, zero_mean=True).numpy()
        found[f"{kind}, heard"] = si_sdr(damaged, wanted, zero_mean=True).numpy()
    return found


def summary(found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    def of(values: Mapping[str, np.ndarray]) -> dict[str, list[float]]:
        # A clip is drawn with all its damages.
        return {"all": interval(np.mean([values[kind] for kind in DAMAGE], 0))} | {
            kind: interval(values[kind]) for kind in DAMAGE
        }

    knitting = found["knitting"]
    table: dict[str, Any] = {
        "heard": of({kind: found["none"][f"{kind}, heard"] for kind in DAMAGE}),
        **{name: of(values) for name, values in found.items()},
    }
    for name in ("none", "flat", "bottleneck"):
        table[f"knitting less {name}"] = of({kind: knitting[kind] - found[name][kind] for kind in DAMAGE})
    return table


def operations(decoder: WaveformDecoder, width: int) -> dict[str, Any]:
    """Of one adapter on the map of three seconds: all, and attention alone."""
    (site, *_) = decoder.sites()
    assert site.bands is not None
    columns = SECONDS * 25 + 1
    y = torch.zeros(1, site.bands * columns, site.dim_out)
    counted: dict[str, Any] = {"map": [site.bands, columns]}
    for name, method in (("knitting", Knitting(width=width)), ("flat", Flat(width=width))):
        counted[name] = operations_of(method.build(site, nn.Identity(), None), y, Context())
    return counted


if __name__ == "__main__":
    main()
