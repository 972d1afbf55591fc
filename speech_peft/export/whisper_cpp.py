"""Logits of a ggml file by whisper.cpp itself: the library that pywhispercpp brings, called directly.

pywhispercpp hands on one logit of a row, so its C functions are called by ctypes. They hear 30 s at once; for
less there is `audio_ctx`, which only the search for a whole text is given.
"""

import ctypes
from ctypes import POINTER, c_char_p, c_float, c_int, c_void_p
from importlib import util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32
from numpy import ndarray

from ..errors import ConfigError
from .ggml import NAME
from .reading import Reading

INSTALL = "pip install pywhispercpp"
_LOG = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
_QUIET = _LOG(lambda *_: None)  # here, as the library keeps it for good


def hear(folder: Path, reading: Reading) -> Float32[ndarray, "n v"]:
    """The logits of such a folder by whisper.cpp, told the tokens of the reading one after another.

    Raises ConfigError without the library, and for a file that it does not open or run.
    """
    library, threads = _library(), torch.get_num_threads()
    library.whisper_log_set(_QUIET, None)
    model = library.whisper_init_from_file(str(folder / NAME).encode())
    if not model:
        raise ConfigError(f"{folder / NAME}: whisper.cpp does not open it")
    try:
        mel = np.ascontiguousarray(reading.features[0], dtype=np.float32)
        bins, frames = mel.shape
        failed = library.whisper_set_mel(model, mel.ctypes.data_as(POINTER(c_float)), frames, bins)
        if failed or library.whisper_encode(model, 0, threads):
            raise ConfigError(f"{folder / NAME}: whisper.cpp does not hear {frames} frames of {bins} bands")
        rows, size = [], reading.logits.shape[1]
        for i, token in enumerate((*reading.prompt, *reading.tokens[:-1])):
            if library.whisper_decode(model, (c_int * 1)(token), 1, i, threads):
                raise ConfigError(f"{folder / NAME}: whisper.cpp does not read token {token}")
            rows.append(np.ctypeslib.as_array(library.whisper_get_logits(model), (size,)).copy())
        return np.stack(rows[len(reading.prompt) - 1 :])
    finally:
        library.whisper_free(model)


def _library() -> Any:
    found = util.find_spec("_pywhispercpp")
    beside = Path(found.origin).parent if found and found.origin else None
    files = sorted(beside.glob("pywhispercpp.libs/*whisper*")) if beside else []
    if not files:
        raise ConfigError(f"whisper.cpp's library is not here, in the folder pywhispercpp.libs: {INSTALL}")
    library: Any = ctypes.CDLL(str(files[0]))
    library.whisper_log_set.argtypes = [_LOG, c_void_p]
    library.whisper_init_from_file.argtypes, library.whisper_init_from_file.restype = [c_char_p], c_void_p
    library.whisper_set_mel.argtypes = [c_void_p, POINTER(c_float), c_int, c_int]
    library.whisper_encode.argtypes = [c_void_p, c_int, c_int]
    library.whisper_decode.argtypes = [c_void_p, POINTER(c_int), c_int, c_int, c_int]
    library.whisper_get_logits.argtypes = [c_void_p]
    library.whisper_get_logits.restype = POINTER(c_float)
    library.whisper_free.argtypes = [c_void_p]
    return library
