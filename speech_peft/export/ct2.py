"""A Whisper as CTranslate2 and faster-whisper read it: model.bin with its vocabulary, tokenizer and settings.

The inverse of `backbones/checkpoints/ctranslate2.py`, by CTranslate2's own converter, which knows its layout
and how it quantises: int8 has one scale a row, 127 / max |w|. The table of positions stays whole and the
encoder takes any number of frames, so what learned to hear at the length of the audio does so there too.
"""

import logging
import os
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray

from ..backbones.whisper import Whisper
from ..errors import ConfigError
from ..files.atomic import atomic_folder
from .reading import Reading
from .whisper_files import vocabulary, write_side_files

DTYPES = ("int8", "float16", "float32")
INSTALL = "pip install 'speech_peft[ct2]'"


def write_ct2(model: Any, backbone: Whisper, folder: str | os.PathLike[str], dtype: str = "int8") -> Path:
    """Write a stock WhisperForConditionalGeneration as a folder, which appears when it is complete.

    `backbone` gives the tokens and the settings of features; `model` is the one in it, merged, and stays as
    it is. Raises ConfigError for another dtype, without the package ctranslate2, and where the folder is not
    empty.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype: {dtype!r} is none of CTranslate2's here: {', '.join(DTYPES)}")
    spec = _filled(model, dtype)
    spec.register_vocabulary(vocabulary(backbone, model.config.vocab_size))
    _configure(spec.config, backbone)
    spec.validate()
    _own_copies(spec)
    spec.optimize(dtype)
    try:
        with atomic_folder(folder) as half:
            spec.save(str(half))
            write_side_files(backbone, half)
    except OSError as error:
        raise ConfigError(f"{os.fspath(folder)} cannot be written: {error.strerror or error}") from None
    return Path(folder)


def hear(folder: Path, reading: Reading) -> Float32[ndarray, "n v"]:
    """The logits of such a folder by CTranslate2 on the CPU, along its own greedy text.

    What follows the prompt is not forced: CTranslate2 reads no more than the prompt of what it is given.
    """
    engine = import_module("ctranslate2")
    level = engine.get_log_level()
    engine.set_log_level(logging.ERROR)  # that a CPU computes float16 as float32 is warned of
    model = engine.models.Whisper(str(folder), device="cpu", intra_threads=torch.get_num_threads())
    engine.set_log_level(level)
    (heard,) = model.generate(
        engine.StorageView.from_array(reading.features),
        [list(reading.prompt)],
        beam_size=1,
        max_length=2 * max(len(reading.prompt), len(reading.tokens)),  # of which it writes half
        suppress_blank=False,
        suppress_tokens=[],
        return_logits_vocab=True,
    )
    return np.stack([np.array(row) for row in heard.logits[0]])


def _filled(model: Any, dtype: str) -> Any:
    """CTranslate2's description of a Whisper, holding the model's own tensors."""
    try:
        loader = import_module("ctranslate2.converters.transformers").WhisperLoader()
    except ImportError:
        raise ConfigError(f"to write CTranslate2's layout, ctranslate2 is needed: {INSTALL}") from None
    if type(model).__name__ != loader.architecture_name:
        raise ConfigError(
            f"CTranslate2's layout holds a {loader.architecture_name}, and this is a {type(model).__name__}"
        )
    return loader.get_model_spec(model)


def _configure(config: Any, backbone: Whisper) -> None:
    generation, decoder = backbone.generation, backbone.module.config
    half = range(decoder.decoder_layers // 2, decoder.decoder_layers)
    default = [(block, head) for block in half for head in range(decoder.decoder_attention_heads)]
    config.suppress_ids = list(generation.suppress)
    config.suppress_ids_begin = list(generation.begin_suppress)
    config.lang_ids = sorted(generation.languages.values())
    config.alignment_heads = [list(pair) for pair in generation.alignment_heads or default]


def _own_copies(spec: Any) -> None:
    """Have each matrix copied when it is quantised: CTranslate2 scales it in place, in the model itself."""
    kinds = import_module("ctranslate2.specs.model_spec")

    class Copied(kinds.PyTorchVariable):
        def numpy(self) -> Any:
            return super().numpy().copy()

    def replace(part: Any, name: str, value: Any) -> None:
        if isinstance(value, kinds.PyTorchVariable):
            setattr(part, name.rsplit("/", 1)[-1], Copied(value.tensor))

    kinds.visit_spec(spec, replace)
