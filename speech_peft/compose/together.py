"""Adapters that were trained apart, in one folder that opens as all of them at once.

The last is the one that is opened: its heads, its recipe and the way in which its backbone was opened hold.
The others lie inside its folder and run before it, in their order, as what it was trained with would.
So an adapter of lengths goes with one of a domain that was made at 30 s, and a bridge from another language
with a decoder that was adapted by somebody else.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path

from ..core.method import Mixing
from ..core.saved.save import Saved, manifest_text
from ..core.saved.swap import complete
from ..errors import ConfigError

_FILES = ("adapter.json", "adapter.safetensors", "recipe.yaml", "README.md")


def write_together(folder: str | Path, adapters: Mapping[str, Saved]) -> Path:
    """Copy adapters, by the names that they are to have, into a folder in which they run together.

    Raises ConfigError for adapters of two backbones, and for one that cannot lie beside others: one with
    heads that is not the last, one that was trained with others or over them, and a fine-tuned encoder.
    """
    *others, last = adapters
    for name, saved in adapters.items():
        _check(name, saved, first=adapters[last], is_last=name == last)
    opened = adapters[last]
    together = {**{name: f"./{name}" for name in others}, last: "."}
    manifest = opened.manifest.model_copy(
        update={"together": together, "format": max(2, opened.manifest.format)}
    )
    with complete(Path(folder)) as half:
        _copy(opened, half, ("head.safetensors",))
        (half / "adapter.json").write_text(manifest_text(manifest) + "\n", encoding="utf-8")
        for name in others:
            (half / name).mkdir()
            _copy(adapters[name], half / name)
    return Path(folder)


def _check(name: str, saved: Saved, first: Saved, is_last: bool) -> None:
    if not name.isidentifier():
        raise ConfigError(f"{saved.folder}: {name!r} is to be its name, and that is letters, digits and _")
    reasons = {
        "was trained together with others": bool(saved.manifest.together),
        "was trained over others": isinstance(saved.method, Mixing),
        "is a fully fine-tuned encoder": saved.base_trained,
        f"has {' and '.join(saved.head_config)} of its own; give it last": bool(saved.head_config)
        and not is_last,
    }
    for why in (why for why, holds in reasons.items() if holds):
        raise ConfigError(f"{saved.folder}: {why}, so it cannot run beside these")
    saved.check_backbone(first.backbone)


def _copy(saved: Saved, to: Path, more: tuple[str, ...] = ()) -> None:
    for file in (*_FILES, *more):
        if (saved.folder / file).is_file():
            shutil.copyfile(saved.folder / file, to / file)
