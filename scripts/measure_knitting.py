#!/usr/bin/env python
"""Sounds damaged in some frequencies: knitting beside flat attention and a bottleneck of as many numbers.

    python scripts/measure_knitting.py esc10 -o knitting.json

Folders of classes, the fold before the first "-" of each name, as ESC-10 has it. For each fold a small AST
learns the classes on the clean clips of the others, from random numbers, and is frozen with its head. Then
adapters learn to give, for a damaged clip, the states of the clean one; nobody tells them its class. On the
fold that is left, damaged: the accuracy of the frozen head, and |made - clean| / |clean| of the states, with
intervals of 95 % over clips drawn again. `flat` is knitting whose attentions both see the whole map at once.
Damage is drawn for each clip: a notch of one octave, a tilt of 3 to 9 dB an octave either way, or mains hum.
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import speech_peft as sp
from speech_peft.audio import io
from speech_peft.backbones.ast import Ast
from speech_peft.backbones.checkpoints.weights import Origin
from speech_peft.core.context import Context
from speech_peft.core.model import AdaptedModel
from speech_peft.core.site import Site
from speech_peft.methods.knitting import Knitting, _Knitting

RATE, SECONDS, DRAWS = 16_000, 5, 2000
WIDTH, BLOCKS, CHANNELS = 64, 3, 32


class Flat(Knitting):
    """The same numbers, each attention over all patches."""

    name = "flat"

    def build(self, site: Site, target: nn.Module, shared: nn.Module | None) -> "_Flat":
        return _Flat(site, self)


class _Flat(_Knitting):
    def _through(self, attention: nn.Module, h: Tensor, there: Tensor | None, axis: str) -> Tensor:
        lines, open = h.flatten(1, 2), None if there is None else there.flatten(1)
        return (
            super()
            ._through(attention, lines[:, None], None if open is None else open[:, None], "time")
            .view_as(h)
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, default=Path("knitting.json"))
    parser.add_argument("--epochs", type=int, default=25, help="Of the small AST.")
    parser.add_argument("--steps", type=int, default=200, help="Of an adapter.")
    parser.add_argument("--variants", type=int, default=3, help="Damaged copies of each training clip.")
    parser.add_argument("--folds", nargs="*", type=int, help="By default all.")
    options = parser.parse_args()
    files = sorted(options.folder.glob("*/*.ogg")) + sorted(options.folder.glob("*/*.wav"))
    classes = sorted({file.parent.name for file in files})
    labels = torch.tensor([classes.index(file.parent.name) for file in files])
    folds = np.array([int(file.name.partition("-")[0]) for file in files])
    sounds = [padded(io.load(file, RATE).samples) for file in files]
    copies = [
        [damaged(s, np.random.default_rng((i, v))) for v in range(options.variants + 1)]
        for i, s in enumerate(sounds)
    ]
    backbone = small_ast()  # what it hears does not depend on what it learns
    clean = mels(backbone, sounds)
    wrong = [mels(backbone, [copy[v][0] for copy in copies]) for v in range(options.variants + 1)]
    found: dict[str, dict[str, np.ndarray]] = {}
    for fold in options.folds or sorted(set(folds.tolist())):
        for name, scores in one_fold(folds == fold, clean, wrong, labels, options).items():
            rows = found.setdefault(name, {k: np.zeros(len(files)) for k in scores})
            for key, values in scores.items():
                rows[key][folds == fold] = values
        print(
            fold,
            {
                n: {k: round(float(v[folds <= fold].mean()), 3) for k, v in r.items()}
                for n, r in found.items()
            },
            flush=True,
        )
    seen = np.isin(folds, options.folds or folds)
    found = {name: {key: values[seen] for key, values in rows.items()} for name, rows in found.items()}
    table = {name: {key: interval(values) for key, values in rows.items()} for name, rows in found.items()}
    table |= {
        f"knitting less {name}": {k: interval(found["knitting"][k] - found[name][k]) for k in found[name]}
        for name in found
        if name != "knitting"
    }
    kinds = np.array([copy[0][1] for copy in copies])[seen]
    table["knitting less flat, by damage"] = {
        f"{key} {kind}": interval((found["knitting"][key] - found["flat"][key])[kinds == kind])
        for key in found["flat"]
        for kind in sorted(set(kinds))
    }
    table["operations"] = operations()
    print(json.dumps(table, indent=1))
    options.out.write_text(json.dumps(table, indent=1))


def padded(samples: np.ndarray) -> np.ndarray:
    whole = np.zeros(SECONDS * RATE, np.float32)
    whole[: len(samples)] = samples[: len(whole)]
    return whole


def damaged(samples: np.ndarray, draw: np.random.Generator) -> tuple[np.ndarray, str]:
    """The clip with something wrong in some frequencies, and what."""
    kind = str(draw.choice(["notch", "tilt", "hum"]))
    if kind == "hum":
        mains, seconds = draw.choice([50.0, 60.0]), np.arange(len(samples)) / RATE
        parts = [
            draw.uniform(0.3, 1) * np.sin(2 * np.pi * mains * n * seconds + draw.uniform(0, 6))
            for n in range(1, 41)
        ]
        hum = np.sum(parts, 0)
        loud = np.sqrt(np.mean(samples**2) / np.mean(hum**2)) * 10 ** (draw.uniform(-5, 5) / 20)
        return (samples + loud * hum).astype(np.float32), kind
    spectrum = np.fft.rfft(samples)
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE).clip(20)
    if kind == "notch":
        centre = 2 ** draw.uniform(np.log2(300), np.log2(5000))
        decibels = np.where(np.abs(np.log2(hertz / centre)) < 0.5, -40.0, 0.0)
    else:
        decibels = draw.choice([-1, 1]) * draw.uniform(3, 9) * np.log2(hertz / 1000)
        decibels -= max(0.0, decibels.max() - 20)
    made = np.fft.irfft(spectrum * 10 ** (decibels / 20), len(samples))
    return (made / max(1.0, np.abs(made).max())).astype(np.float32), kind


def small_ast() -> Ast:
    from transformers import ASTConfig, ASTModel  # behind our own import, which guards it

    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=4,
        intermediate_size=4 * WIDTH,
        max_length=SECONDS * 100,
        frequency_stride=16,
        time_stride=16,
    )
    return Ast(ASTModel(config), Origin("tiny:ast", "measured"), context="full")


def one_fold(
    left_out: np.ndarray, clean: Tensor, wrong: list[Tensor], labels: Tensor, options: Any
) -> dict[str, dict[str, np.ndarray]]:
    backbone = small_ast()
    head = nn.Linear(WIDTH, int(labels.max()) + 1)
    train, test = np.flatnonzero(~left_out), np.flatnonzero(left_out)
    learn_classes(backbone, head, clean[train], labels[train], options.epochs)
    with torch.no_grad():
        wanted = torch.cat([through(backbone, part) for part in clean.split(32)])
    tested = wrong[0][test]  # a copy that nobody learns from
    pairs = torch.cat([wrong[v][train] for v in range(1, options.variants + 1)])
    targets = wanted[train].repeat(options.variants, 1, 1)

    def scores(model_states: Callable[[Tensor], Tensor], given: Tensor) -> dict[str, np.ndarray]:
        with torch.no_grad():
            states = torch.cat([model_states(part) for part in given.split(32)])
        right = head(states[:, :2].mean(1)).argmax(-1) == labels[test]
        far = (states - wanted[test]).flatten(1).norm(dim=1) / wanted[test].flatten(1).norm(dim=1)
        return {"accuracy": right.float().numpy(), "feature_error": far.numpy()}

    def plain(values: Tensor) -> Tensor:
        return through(backbone, values)

    found = {"clean": scores(plain, clean[test]), "none": scores(plain, tested)}
    for name, method in methods(backbone).items():
        torch.manual_seed(0)
        model = sp.AdaptedModel(backbone.module, backbone.sites(), {name: method})
        began = time.process_time()
        learn_states(backbone, model, name, pairs, targets, options.steps)
        print(
            name,
            f"{sum(p.numel() for p in model.parameters_of(name)):,} numbers",
            f"{time.process_time() - began:.0f} CPU s",
            flush=True,
        )
        found[name] = scores(plain, tested)
        model.detach()
    return found


def mels(backbone: Ast, sounds: list[np.ndarray]) -> Tensor:
    audio = torch.from_numpy(np.stack(sounds))
    return torch.cat(
        [backbone.prepare(part, torch.full((len(part),), audio.shape[1])).values for part in audio.split(64)]
    )


def through(backbone: Ast, values: Tensor) -> Tensor:
    """Tokens behind the last block, the two that sum up the clip first."""
    return backbone.module(values).last_hidden_state


def learn_classes(backbone: Ast, head: nn.Module, values: Tensor, labels: Tensor, epochs: int) -> None:
    own = [*backbone.module.parameters(), *head.parameters()]
    for parameter in own:
        parameter.requires_grad_(True)
    optimiser = torch.optim.AdamW(own, 1e-3, weight_decay=0.05)
    draw = torch.Generator().manual_seed(0)
    for epoch in range(epochs):
        for group in optimiser.param_groups:
            group["lr"] = 1e-3 * min(1.0, (epoch + 1) / 3) * (1 - epoch / epochs)
        for part in torch.randperm(len(values), generator=draw).split(16):
            shift = int(torch.randint(0, values.shape[1], (), generator=draw))
            states = through(backbone, values[part].roll(shift, 1))
            loss = nn.functional.cross_entropy(head(states[:, :2].mean(1)), labels[part], label_smoothing=0.1)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    for parameter in own:
        parameter.requires_grad_(False)


def methods(backbone: Ast) -> dict[str, Any]:
    """Knitting, the same with flat attention, and the bottleneck of the nearest number of parameters."""
    knitting = Knitting(width=CHANNELS)
    (site, *_) = [site for site in backbone.sites() if site.kind == "block"]
    count = sum(p.numel() for p in knitting.build(site, nn.Identity(), None).parameters())
    width = round((count - WIDTH) / (2 * WIDTH + 1))
    return {
        "knitting": knitting,
        "flat": Flat(width=CHANNELS),
        "bottleneck": sp.Bottleneck(width=width, sites=("layers.*.block",)),
    }


def learn_states(
    backbone: Ast, model: AdaptedModel, name: str, values: Tensor, targets: Tensor, steps: int
) -> None:
    own, draw = model.trainable(name), torch.Generator().manual_seed(0)
    optimiser = torch.optim.AdamW(own, 2e-3)
    model.train()
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 2e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
        part = torch.randint(0, len(values), (16,), generator=draw)
        apart = through(backbone, values[part]) - targets[part]
        loss = (apart.flatten(1).norm(dim=1) / targets[part].flatten(1).norm(dim=1)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()


def interval(values: np.ndarray) -> list[float]:
    drawn = np.random.default_rng(0).integers(len(values), size=(DRAWS, len(values)))
    means = values[drawn].mean(1)
    return [round(float(x), 4) for x in (values.mean(), *np.percentile(means, (2.5, 97.5)))]


def operations() -> dict[str, Any]:
    """Of one adapter of 64 channels on the map of AST-base, 12 x 101 patches of 768: all, attention alone."""
    site = Site("layers.0.block", "block", "b", "b", 768, 768, bands=12)
    y, known = torch.zeros(1, 2 + 12 * 101, 768), Context(summary=(0, 2))
    return {
        name: operations_of(method.build(site, nn.Identity(), None), y, known)
        for name, method in (("knitting", Knitting()), ("flat", Flat()))
    }


def operations_of(part: nn.Module, y: torch.Tensor, known: Context) -> dict[str, int]:
    """Of one pass through an adapter: all, and those of attention alone."""
    # In plain products, as those of a fused kernel are not counted.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        part(y, y, known)
    total = counter.get_flop_counts()["Global"]
    return {"all": sum(total.values()), "attention": sum(n for op, n in total.items() if "bmm" in str(op))}


if __name__ == "__main__":
    main()
