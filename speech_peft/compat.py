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

_ASKED = "transformers.utils.import_utils"
"""Where transformers finds out what is installed, before it imports it."""


def watch_for_transformers() -> None:
    """See to it that torchaudio is guarded before transformers imports it, whoever imports that, and when.

    Nothing is imported for it: what of transformers needs no sound gets none.
    """
    if _ASKED in sys.modules:
        _guard_first(sys.modules[_ASKED])
    elif not any(isinstance(finder, _Watch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Watch())


class _Watch:
    """Finds the module that knows what is installed where it is, and changes it once it is there."""

    def find_spec(self, name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _ASKED:
            return None
        spec = PathFinder.find_spec(name, path, target)
        loader: Any = spec.loader if spec else None
        if loader is None:
            return spec
        execute = loader.exec_module

        def watched(module: ModuleType) -> None:
            execute(module)
            _guard_first(module)

        loader.exec_module = watched  # of this one loader, made for this one module
        return spec


def _guard_first(asked: Any) -> None:
    """Who asks whether torchaudio is there means to import it next: it is guarded, and then looked for."""
    before = getattr(asked, "is_torchaudio_available", None)
    if before is None or getattr(before, "guards", False):
        return

    def is_torchaudio_available() -> bool:
        guard_torchaudio()
        for answer in (before, getattr(asked, "is_speech_available", None)):
            if hasattr(answer, "cache_clear"):
                answer.cache_clear()  # type: ignore[union-attr]  # it may have been given before the guard
        return before()

    is_torchaudio_available.guards = True  # type: ignore[attr-defined]
    for module in (asked, sys.modules.get("transformers.utils")):
        if hasattr(module, "is_torchaudio_available"):
            module.is_torchaudio_available = is_torchaudio_available  # type: ignore[union-attr]


def guard_torchaudio() -> ModuleType | None:
    """torchaudio, as whole as it can be here, or None.

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
    return None


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
