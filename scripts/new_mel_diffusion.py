#!/usr/bin/env python
"""The folder of a mel diffusion that has learned nothing yet: its sizes, and the classes of a manifest.

python scripts/new_mel_diffusion.py sounds/train.jsonl runs/untrained
speech-peft train generate/mel_diffusion data.train=sounds/train.jsonl data.valid=sounds/valid.jsonl
speech-peft export runs/mel_diffusion/base --to hf -o runs/mel
"""

import argparse
from pathlib import Path

from speech_peft.audio import manifest
from speech_peft.backbones.mel_diffusion import untrained


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest")
    parser.add_argument("out", type=Path)
    parser.add_argument("--classes", nargs="*", help="By default all labels of the manifest.")
    parser.add_argument("--width", type=int, default=192)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    classes = options.classes or sorted({row.label for row in manifest.listed(options.manifest) if row.label})
    model = untrained(
        classes,
        options.seed,
        hidden_size=options.width,
        intermediate_size=4 * options.width,
        num_hidden_layers=options.layers,
        num_attention_heads=options.heads,
    )
    model.save_pretrained(options.out)
    print(
        f"{options.out}: {sum(p.numel() for p in model.parameters()):,} parameters, for {', '.join(classes)}"
    )


if __name__ == "__main__":
    main()
