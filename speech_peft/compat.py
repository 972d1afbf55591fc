"""The guarded import of torchaudio, which nothing here needs and transformers imports where it is installed.

The wheel on the package index links CUDA libraries. Beside a CPU build of torch it raises on import, and
then transformers, which imports torchaudio whenever it is installed, cannot import a single model. Mel
spectrograms, Kaldi filter banks, resampling and filters are plain Python and work without the compiled part.
"""

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any


def watch_for_transformers() -> None:
    """See to it that transformers can be imported from now on, by whomever; costs nothing until it is.

    Where it is imported already, and perhaps has failed halfway, torchaudio is guarded at once, so that the
    next try works.
    """
    if "transformers" in sys.modules:
        guard_torchaudio()
    elif not any(isinstance(finder, _BeforeTransformers) for finder in sys.meta_path):
        sys.meta_path.insert(0, _BeforeTransformers())


class _BeforeTransformers:
    """Finds transformers where it is, and guards torchaudio before its first line runs."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "transformers":
            return None
        spec = PathFinder.find_spec(name, path, target)
        loader: Any = spec.loader if spec else None
        if loader is None:
            return spec
        execute = loader.exec_module

        def guarded(module: ModuleType) -> None:
            guard_torchaudio()
            execute(module)

        loader.exec_module = guarded  # of this one loader, made for this one module
        return spec


def guard_torchaudio() -> ModuleType | None:
    """torchaudio, as whole as it can be here, or None; call before anything imports transformers.

    Tried in turn: as installed; with a stand-in for its compiled part; not at all, hidden so that
    transformers does not trip over it.
    """
    if "torchaudio" in sys.modules:
        return sys.modules["torchaudio"]
    if importlib.util.find_spec("torchaudio") is None or importlib.util.find_spec("torch") is None:
        return None
    for stand_in in (None, _absent_extension):
        _forget("torchaudio")
        if stand_in is not None:
            sys.modules["torchaudio._extension"] = stand_in()
        try:
            return importlib.import_module("torchaudio")
        except Exception:  # whatever is wrong with it, it is not ours to fail for
            continue
    _forget("torchaudio")
    sys.modules["torchaudio"] = None  # type: ignore[assignment]  # how Python spells "do not import this"
    _forget_that_it_is_there()
    return None


def _forget_that_it_is_there() -> None:
    """Let transformers look again: it asks once whether torchaudio is installed, and keeps the answer."""
    known = sys.modules.get("transformers.utils.import_utils")
    for name in ("is_torchaudio_available", "is_speech_available"):
        asked: Any = getattr(known, name, None)
        if hasattr(asked, "cache_clear"):
            asked.cache_clear()


def _forget(package: str) -> None:
    """Drops what a failed import left behind; a half-imported module would be taken for a whole one."""
    for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
        del sys.modules[name]


def _absent_extension() -> ModuleType:
    """A `torchaudio._extension` that says the compiled part is absent."""
    extension: Any = ModuleType("torchaudio._extension")
    extension._IS_TORCHAUDIO_EXT_AVAILABLE = False
    extension._IS_ALIGN_AVAILABLE = False
    extension._load_lib = _no_library
    extension._check_cuda_version = _no_version
    extension.fail_if_no_align = _needs_compiled_part
    return extension


def _no_library(name: str) -> bool:
    return False


def _no_version() -> None:
    return None


def _needs_compiled_part(function: Callable[..., Any]) -> Callable[..., Any]:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            f"torchaudio.{function.__name__} needs the compiled part of torchaudio, which does not load "
            "here. Install the torchaudio build that matches this torch."
        )

    return refuse
