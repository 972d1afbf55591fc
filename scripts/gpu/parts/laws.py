"""Does every method work on the device? Forward, backward, a saved file, and how far it is from the CPU."""

import tempfile
import traceback
from typing import Any

import torch
from place import Place

from speech_peft.backbones.families import tiny
from speech_peft.core.method import Method
from speech_peft.core.model import AdaptedModel
from speech_peft.core.saved import save
from speech_peft.errors import ConfigError
from speech_peft.registry import METHODS

BACKBONES: tuple[tuple[str, dict[str, str]], ...] = (
    ("whisper", {"context": "fit"}),
    ("ast", {}),
    ("conformer", {"family": "wav2vec2-bert"}),
    ("conformer", {"family": "parakeet"}),
    ("usm", {}),
)


def main() -> None:
    place = Place.from_arguments()
    place.out.mkdir(parents=True, exist_ok=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    failures: dict[str, str] = {}
    worst: dict[str, float] = {}
    passed = 0
    for name in METHODS.names():
        for number, example in enumerate(METHODS[name].examples()[: 1 if place.tiny else None]):
            for backbone, options in BACKBONES[: 1 if place.tiny else None]:
                where = f"{name}-{number} on {options.get('family', backbone)}"
                try:
                    distance = compare(example, backbone, options, place.device)
                except Exception:
                    failures[where] = traceback.format_exc(limit=-3)
                    continue
                if distance is not None:
                    passed += 1
                    worst[where] = distance
    result: dict[str, Any] = {
        "passed": passed,
        "failed": len(failures),
        "failures": failures,
        "furthest from the CPU": dict(sorted(worst.items(), key=lambda item: -item[1])[:5]),
    }
    place.result(**result)


def compare(method: Method, name: str, options: dict[str, Any], device: str) -> float | None:
    """How far states are from the CPU's, by the largest of them; None where the method does not fit."""
    backbone = tiny(name, **options)
    audio = torch.randn(2, 8000, generator=torch.Generator().manual_seed(0)) * 0.1
    features = backbone.prepare(audio, torch.tensor([8000, 6400]))
    try:
        model = AdaptedModel(backbone.module, backbone.sites(), {**method.company(), "a": method})
    except ConfigError:
        return None
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.adapters.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        here = backbone.encode(features).states
    model.to(device)
    features = backbone.prepare(audio.to(device), torch.tensor([8000, 6400], device=device))
    there = backbone.encode(features)
    model.trainable("a")
    backbone.encode(features).states.square().mean().backward()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        save.write(folder, model, "a", backbone.card())
        return float((there.states.cpu() - here).abs().max() / here.abs().max())


if __name__ == "__main__":
    main()
