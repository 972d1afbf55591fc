"""A LoRA, or an adapter that amounts to one, as PEFT's own two files."""

import warnings
from pathlib import Path

from jaxtyping import Float32
from numpy import ndarray

from ..backbones.in_memory import open_weights
from ..compose.peft_lora import export_peft, nearest_loras
from ..compose.peft_settings import FILE
from ..errors import ConfigError
from ..files import json_text
from ..files.atomic import atomic_folder
from ..opening.loading import NAME, Opened
from .hf import stock_logits
from .reading import Reading


def write_peft(
    opened: Opened, folder: Path, base_id: str | None = None, rank: int | None = None
) -> list[str]:
    """Write the files, in a folder that appears when it is complete; what there is to know about them.

    `rank` writes the nearest LoRA of that rank for an adapter that merges and is none. Raises ConfigError,
    naming the site, for what is no low-rank change of single layers, for a trained base, and where there is
    no adapter.
    """
    saved, model = opened.saved, opened.model
    if saved is None:
        raise ConfigError("--to peft holds adapters alone, and these are weights; --to hf holds them")
    if saved.base_trained:
        raise ConfigError(
            f"{saved.folder}: the backbone was trained too (base.safetensors), and PEFT's files hold "
            "adapters alone; write the whole model: --to hf"
        )
    near = nearest_loras(model, NAME, rank) if rank else []
    notes = []
    try:
        with atomic_folder(folder) as half:
            export_peft(
                model, NAME, half, base_id or saved.backbone.id, [change for change, _ in near] or None
            )
    except OSError as error:
        raise ConfigError(f"--out {folder} cannot be written: {error.strerror or error}") from None
    if near:
        worst, site = max((error, s.name) for (_, error), s in zip(near, model.sites[NAME], strict=True))
        notes.append(
            f"rank {rank}: the change of the weights is off by at most {100 * worst:.2g} %, at {site}"
        )
    if others := [name for name, at in saved.manifest.together.items() if at != "."]:
        notes.append(f"note: it was trained together with {', '.join(others)}, which these files do not hold")
    return notes


def hear(folder: Path, reading: Reading) -> Float32[ndarray, "n v"]:
    """The logits of such a folder by PEFT, on the base that it names."""
    from peft import PeftModel

    module = open_weights(json_text.read_object(folder / FILE)["base_model_name_or_path"]).module
    with warnings.catch_warnings(action="ignore"):  # about versions of its own and transformers'
        return stock_logits(PeftModel.from_pretrained(module, folder).eval(), reading)
