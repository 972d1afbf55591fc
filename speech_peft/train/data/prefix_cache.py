"""The frozen-prefix cache: with what learns only in the top k blocks, the blocks below run once per clip.

What enters the lowest block in which an adapter learns depends on the clip and on frozen numbers alone, so it
is computed at the first meeting and kept. A key names everything that could change it: the recording and its
place in it, how it is degraded and in which variant, the backbone's weights and context, adapters that run
and do not learn, the block, the padded length.

A clip's states must not depend on its neighbours. Whisper attends to padding, so in cache mode a batch holds
clips of one grid length (`GridBatches`), each padded to the grid and no further. Native-length batches,
on-the-fly degradation and augmentation would need states nobody kept; they are refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import ConfigError
from ...files import tensors
from ...files.atomic import atomic_path
from ...recipe.recipe import Recipe

if TYPE_CHECKING:
    from ...backbones.base import Backbone, Encoded, Features
    from ...core.model import AdaptedModel
    from .heard import Batch


@dataclass(frozen=True)
class Entry:
    """One clip: states entering block k, the encoder's mask of the input, and how many frames hold sound."""

    states: Float[Tensor, "t d"]
    mask: Tensor
    """Empty when the backbone has no mask."""
    length: Tensor


@runtime_checkable
class Store(Protocol):
    """Keys to entries."""

    def get(self, key: str) -> Entry | None: ...
    def put(self, key: str, entry: Entry) -> None: ...
    def __contains__(self, key: str) -> bool: ...


class Memory:
    """Entries for as long as the run lasts; those of a name, for as long as the process does."""

    named: ClassVar[dict[str, dict[str, Entry]]] = {}

    def __init__(self, name: str | None = None):
        self.entries: dict[str, Entry] = {} if name is None else self.named.setdefault(name, {})

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    def get(self, key: str) -> Entry | None:
        return self.entries.get(key)

    def put(self, key: str, entry: Entry) -> None:
        self.entries[key] = entry


class Disk:
    """One safetensors file per entry; a run that is stopped or repeated finds them again."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._whole: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"

    def __contains__(self, key: str) -> bool:
        """Whether it is there and whole; what is damaged goes, and is computed again.

        Looked at once and before it is counted on: of a clip that is kept nobody loads the audio.
        """
        if key not in self._whole and self._path(key).exists():
            if self._read(key) is None:
                self._path(key).unlink(missing_ok=True)
            else:
                self._whole.add(key)
        return key in self._whole

    def get(self, key: str) -> Entry | None:
        return self._read(key) if key in self else None

    def _read(self, key: str) -> Entry | None:
        try:
            return Entry(**tensors.read(self._path(key)))
        except (ConfigError, TypeError):  # damaged, not finite, or not an entry
            return None

    def put(self, key: str, entry: Entry) -> None:
        with atomic_path(self._path(key)) as half:
            tensors.write(half, vars(entry))
        self._whole.add(key)


class PrefixCache:
    """Encodes batches from the states that enter block `k`, computing what it has not met yet."""

    def __init__(self, backbone: Backbone, k: int, store: Store, dtype: torch.dtype, salt: str):
        self.backbone, self.k, self.store, self.dtype = backbone, k, store, dtype
        card = backbone.card()
        self._salt = f"{salt}|{card.name}|{card.sha256}|{sorted(card.options.items())}|{k}|{dtype}"
        self.hits = self.misses = 0

    @classmethod
    def of(cls, recipe: Recipe, backbone: Backbone, model: AdaptedModel) -> PrefixCache:
        """The cache that a recipe asks for; raises ConfigError where none would be exact."""
        assert recipe.data.cache is not None
        if recipe.data.native_share:
            raise ConfigError(
                "data.native_share: the prefix cache keeps each clip at one length; set it to 0"
            )
        config = recipe.data.cache
        folder = Path(config.folder or Path(recipe.out) / "prefix_cache")
        store: Store = Memory(config.folder) if config.where == "memory" else Disk(folder)
        data = recipe.data
        # Without degradation a clip sounds the same whatever the seed, so runs share its states.
        steps = f"{data.degrade}|{data.clean}|{data.variants}|{recipe.seed}|{data.degrade_valid}"
        degraded = steps if data.degrade else "as recorded"
        top = getattr(recipe.task, "layer", None)
        lowest = lowest_block(backbone, model, top if isinstance(top, int) else None)
        return cls(backbone, lowest, store, getattr(torch, config.dtype), degraded + _frozen(model))

    def key(self, source: str, grid_samples: int) -> str:
        """`source` names the audio: recording, place, variant."""
        return hashlib.sha256(f"{self._salt}|{source}|{grid_samples}".encode()).hexdigest()

    def encode(self, batch: Batch) -> Encoded:
        """What the backbone would make of the batch, with the active adapters at work from block k on."""
        return self.backbone.encode_from(self.k, *self.states(batch))

    def states(self, batch: Batch) -> tuple[Float[Tensor, "b t d"], Features]:
        """What enters block k, and as much of the features as the blocks from there on ask for."""
        keys = [self.key(source, batch.grid_samples) for source in batch.sources]
        missing = [i for i, key in enumerate(keys) if key not in self.store]
        if missing:
            self._compute(batch, keys, missing)
        self.hits, self.misses = self.hits + len(keys) - len(missing), self.misses + len(missing)
        return self._resume([entry for key in keys if (entry := self.store.get(key)) is not None], batch)

    @torch.no_grad()
    def _compute(self, batch: Batch, keys: Sequence[str], missing: Sequence[int]) -> None:
        where = torch.tensor(missing, device=batch.audio.device)
        audio, lengths = batch.audio[where], batch.lengths[where]
        with torch.autocast(audio.device.type, enabled=False):  # features are in float32, as elsewhere
            features = self.backbone.prepare(audio, lengths, pad_to=batch.grid_samples)
        states = self.backbone.prefix(features, self.k)
        for row, i in enumerate(missing):
            mask = torch.empty(0) if features.mask is None else features.mask[row].cpu()
            # Cloned: a row of a batch would keep the whole batch alive.
            kept = states[row].to(self.dtype).cpu().clone()
            if problem := tensors.not_finite(kept):
                clip, dtype = batch.sources[i].split("|")[0], str(self.dtype).removeprefix("torch.")
                raise ConfigError(
                    f"data.cache: what enters block {self.k} of {clip} {problem}, so it is not kept. "
                    f"If data.cache.dtype={dtype} is too small for it, float32 is not"
                )
            self.store.put(keys[i], Entry(kept, mask.clone(), features.lengths[row].cpu().clone()))

    def _resume(self, entries: Sequence[Entry], batch: Batch) -> tuple[Tensor, Features]:
        from ...backbones.base import Features

        device = batch.lengths.device
        # Each to float32 before they meet: autocast to bfloat16 stacks no float16.
        states = torch.stack([entry.states.float() for entry in entries]).to(device)
        masks = [entry.mask for entry in entries]
        mask = torch.stack(masks).to(device) if masks[0].numel() else None
        lengths = torch.stack([entry.length for entry in entries]).to(device)
        return states, Features(states.new_empty(len(entries), 0), mask, lengths)


def lowest_block(backbone: Backbone, model: AdaptedModel, top: int | None = None) -> int:
    """The first block of the first `top` in which an adapter learns: all below it are frozen for good."""
    sites = [site for name in _learning(model) for site in model.sites[name]]
    blocks = [block for site in sites if (block := backbone.block_of(site)) is not None]
    lowest = min([*blocks, backbone.depth if top is None else top])
    if lowest == 0:
        at = next(site.name for site in sites if backbone.block_of(site) == 0)
        raise ConfigError(
            f"data.cache: {at} lies in the first block, so nothing below it is frozen. Put adapters only "
            f"into the top blocks, such as layers.{max(1, backbone.depth * 2 // 3)}.ffn, or drop data.cache"
        )
    return lowest


def _learning(model: AdaptedModel) -> list[str]:
    return [name for name in model.active if name in model.learning]


def _frozen(model: AdaptedModel) -> str:
    """What tells apart the numbers of active adapters that do not learn."""
    digest = hashlib.sha256()
    names = [name for name in model.active if name not in _learning(model)]
    for name in names:
        digest.update(name.encode())
        for parameter in model.parameters_of(name):
            digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return f"|{digest.hexdigest()}" if names else ""
