"""In what a run computes, and whether the machine has the device that it asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..terminal.door import complain
from .processes import is_first

if TYPE_CHECKING:
    from ..recipe.parts import TrainerConfig


def check_device(trainer: TrainerConfig) -> None:
    """Raises ConfigError for a device that is not there, before anything is loaded."""
    import torch

    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    there = {"gpu": cuda or mps, "mps": mps}
    if not there.get(trainer.accelerator, True):
        found = "torch finds none (see speech-peft doctor)"
        raise ConfigError(
            f"trainer.accelerator: {trainer.accelerator} is asked for, and {found}. Give cpu, or auto, which "
            "takes what there is"
        )
    gpus = torch.cuda.device_count()
    wanted = trainer.devices
    if cuda and trainer.accelerator in ("auto", "gpu") and isinstance(wanted, int) and wanted > gpus:
        raise ConfigError(f"trainer.devices: {wanted} are asked for, and there are {gpus} GPUs")


def precision_of(trainer: TrainerConfig) -> Any:
    """What Lightning is told: for `auto` bf16 where this machine has instructions for it.

    Else fp16 on a GPU and fp32 on a processor. Says so, before the first step, where a choice will be slow.
    """
    wanted, on_gpu = trainer.precision, _on_gpu(trainer)
    if wanted == "16-mixed" and on_gpu is None:
        raise ConfigError(
            "trainer.precision: 16-mixed needs a GPU, and this run is on the CPU. "
            "Give bf16-mixed or 32-true, or auto, which takes what the machine computes in"
        )
    if wanted == "auto":
        if on_gpu == "mps":
            return "32-true"
        if bf16_native(gpu=on_gpu is not None):
            return "bf16-mixed"
        return "32-true" if on_gpu is None else "16-mixed"
    if (
        wanted.startswith("bf16")
        and on_gpu != "mps"
        and not bf16_native(gpu=on_gpu is not None)
        and is_first()
    ):
        complain(
            f"trainer.precision: {wanted} on a processor without instructions for bf16: each step will take "
            "several times as long as in 32-true. Give 32-true, or auto, which knows",
        )
    return "bf16-mixed" if wanted == "bf16-true" else wanted  # only the base is in bf16, see `train.build`


def bf16_native(gpu: bool) -> bool:
    """Whether the GPU, or else the CPU, computes in bf16 itself; every one can imitate it, slowly."""
    import torch

    if gpu:
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if look := getattr(torch.cpu, "get_capabilities", None):  # not in every torch that we allow
        return any(has for name, has in look().items() if name.endswith("bf16") and isinstance(has, bool))
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")  # torch's, and private
    return any(getattr(torch.cpu, name, bool)() for name in names)


def _on_gpu(trainer: TrainerConfig) -> str | None:
    """cuda, mps, or None for the CPU."""
    import torch

    if trainer.accelerator == "cpu" or not torch.accelerator.is_available():
        return None
    return "cuda" if torch.cuda.is_available() else "mps"
