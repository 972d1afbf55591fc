"""One side of the LoRA training comparison: the same sites, rank, weights and batches; one step per request.

    python lora_worker.py ours|peft WEIGHTS THREADS [DEVICE BATCH] < requests

Each request is one JSON line {"step": n}; the answer has the step's seconds, its loss and the peak memory.
"""

import json
import resource
import sys
import time
from typing import Any

import torch

from speech_peft.backbones.families import open_backbone

SITES = ("layers.*.attn.[qv]", "decoder.layers.*.attn.[qv]", "decoder.layers.*.cross.[qv]")
RANK, ALPHA, TOKENS = 8, 16, 32


def adapted(side: str, weights: str) -> torch.nn.Module:
    """Stock Whisper with a LoRA at SITES; A and B hold the same numbers on both sides."""
    backbone = open_backbone("whisper", weights, context="full")
    from speech_peft.core.model import AdaptedModel
    from speech_peft.core.site import select
    from speech_peft.methods.lora import Lora

    sites = select(backbone.sites(), SITES)
    if side == "ours":
        model = AdaptedModel(
            backbone.module, backbone.sites(), {"a": Lora(rank=RANK, alpha=ALPHA, sites=SITES)}
        )
        parts: list[Any] = [model.at("a", site) for site in sites]
        factors = [(part.a, part.b) for part in parts]
    else:
        from peft import LoraConfig, get_peft_model

        paths = "|".join(site.exit for site in sites)
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=f"({paths})", bias="none")
        model = get_peft_model(backbone.module, config)
        layers: list[Any] = [backbone.module.get_submodule(site.exit) for site in sites]
        factors = [(layer.lora_A["default"].weight, layer.lora_B["default"].weight) for layer in layers]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for a, b in factors:
            a.copy_(torch.randn(a.shape, generator=generator) / a.shape[1] ** 0.5)
            b.copy_(torch.randn(b.shape, generator=generator) * 0.01)
    # Both in eval mode: PEFT would otherwise switch on the base's dropout (which is 0 in tiny.en anyway).
    return model.eval()


def main() -> None:
    side, weights, threads, device, batch = [*sys.argv[1:], "cpu", "4"][:5]
    torch.set_num_threads(int(threads))
    model = adapted(side, weights).to(device)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=1e-4)
    print(json.dumps({"ready": True, "trained": sum(p.numel() for p in trained)}), flush=True)
    for line in sys.stdin:
        step = json.loads(line)["step"]
        generator = torch.Generator().manual_seed(step)
        mel = torch.randn(int(batch), 80, 3000, generator=generator).to(device)
        tokens = torch.randint(0, 50000, (int(batch), TOKENS), generator=generator).to(device)
        started = time.perf_counter()
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            output = model(input_features=mel, decoder_input_ids=tokens, labels=tokens)
        output.loss.backward()
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        loss = output.loss.item()  # waits for the device
        seconds = time.perf_counter() - started
        answer = {
            "seconds": seconds,
            "loss": loss,
            "logits": output.logits[0, :4, :64].flatten().tolist() if step == 0 else None,
            "peak_mb": peak_mb(device),
        }
        print(json.dumps(answer), flush=True)


def peak_mb(device: str) -> float:
    if device == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return torch.cuda.max_memory_allocated() / 2**20


main()
