"""Models with adapters as Python code holds them: attached to what is there, saved, shared, merged, let go.

model = adapt(whisper, {"tel": Lora(rank=8, sites=["*.attn.[qv]"])})
model.print_trainable_parameters()
model.save("runs/tel", name="tel")
model = load("runs/tel")
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn

from ..backbones.base import Backbone
from ..backbones.families import open_backbone
from ..backbones.in_memory import look_at
from ..compose.merge import merge
from ..compose.names import States, fill, keyed, ordinary, states
from ..core.context import Context
from ..core.describe import count
from ..core.method import Method
from ..core.model import AdaptedModel
from ..core.saved import hub, save
from ..core.saved.room import Room
from ..core.saved.save import BackboneCard, Saved
from ..core.site import Site
from ..errors import ConfigError
from ..terminal.door import say
from .companions import called, named, with_companions
from .exchange import swap
from .keeping import keep
from .loading import DEFAULT_WEIGHTS, backbone_of, filled, heads_of


class Adapted(AdaptedModel):
    """An AdaptedModel that knows where its base came from, so that it can be saved and found again.

    Made by `adapt` and `load`. It is used like any module: `.to`, `.half()` and `.bfloat16()` move base,
    adapters and heads together, `copy.deepcopy` gives a model of its own with a base of its own, and
    `torch.compile(model)` compiles the base with the adapters in it; which of them run may change afterwards.
    """

    def __init__(
        self,
        base: nn.Module,
        sites: Sequence[Site],
        methods: Mapping[str, Method],
        rooms: Mapping[str, Room] | None = None,
        *,
        card: BackboneCard,
        backbone: Backbone | None = None,
    ):
        super().__init__(base, sites, methods, rooms)
        self.card, self.backbone = card, backbone
        """Which frozen model it is, and what makes features for it where it was opened by an address."""
        self.saved: Saved | None = None
        """What was read of the adapter, where it was loaded."""
        self.heads = nn.ModuleDict()
        """What reads the encoder's states, by name: "ctc", "classify", "decoder"."""

    @property
    def model(self) -> "Adapted":
        """Itself, for code that was written when `load` gave a backbone and a model beside it."""
        return self

    # ---- as the stock model is used -----------------------------------------------------------------------

    def generate(self, *args: Any, ctx: Context | None = None, **kwargs: Any) -> Any:
        """What the stock model's own `generate` gives, with the active adapters in it; its arguments."""
        generate = getattr(self.base, "generate", None)
        if generate is None:
            raise ConfigError(
                f"{type(self.base).__name__} generates nothing; a model with a decoder does, such as "
                "WhisperForConditionalGeneration"
            )
        if not self.attached:
            raise ConfigError("this model was detached from its base; make another one")
        with self.context(ctx or self.current.ctx):
            return generate(*args, **kwargs)

    @property
    def config(self) -> Any:
        """The configuration of the stock model."""
        return self.base.config

    @property
    def device(self) -> torch.device:
        """Where the base lies."""
        return next(self.base.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Of the base; adapters compute in their own."""
        return next(self.base.parameters()).dtype

    # ---- what it costs ------------------------------------------------------------------------------------

    def trainable_parameters(self) -> tuple[int, int]:
        """How many numbers train, and how many there are, the base included."""
        return count(p for p in self.parameters() if p.requires_grad), count(self.parameters())

    def print_trainable_parameters(self) -> None:
        """Print how many numbers train, in the words of PEFT."""
        trained, total = self.trainable_parameters()
        share = 100 * trained / max(1, total)
        say(f"trainable params: {trained:,} || all params: {total:,} || trainable%: {share:.4f}")

    # ---- kept and shared ----------------------------------------------------------------------------------

    def save(self, folder: str | Path, name: str | None = None) -> Path:
        """Write one adapter as a folder, which appears when it is complete; a saved one there is replaced.

        `name` may be left out where there is one adapter. Several that are active together were trained
        together: they are saved one by one here, and each runs alone when it is loaded. What a mixer is
        over goes with it, into folders inside its own. Raises ConfigError where something that is no adapter
        is in the way, or a number of it is not finite.
        """
        config = self.saved.head_config if self.saved else None
        return keep(self, folder, self._one(name), self.card, dict(self.heads.items()), config)

    def swap(self, name: str, address: str | Path) -> "Adapted":
        """Put the numbers of a saved adapter of the same kind in the place of those of adapter `name`.

        Nothing is built or hooked anew. Raises ConfigError, and leaves everything as it was, where it is of
        another method, other sites or settings, or another base, or where a mixer was trained over `name`.
        """
        swap(self, self._one(name), address, self.card)
        return self

    def materialise(self, who: str | None, name: str | None = None) -> "Adapted":
        """A model with what adapter `name` is for one task or language, as an ordinary adapter of that name.

        None is a task or language that nobody names. It sits on the same base, and this model is detached.
        Raises ConfigError for an adapter that does not differ, and for a name that is none of its own.

        >>> lora = load("runs/mhr").materialise("cs-telephone")                       # doctest: +SKIP
        """
        name = self._one(name)
        parts = ordinary(self, name, who)
        return self._instead(name, keyed(self, name).ordinary(), parts)

    def extend(self, *more: str, name: str | None = None) -> "Adapted":
        """A model whose adapter `name` knows more tasks or languages, and learns these alone.

        They start as new ones do. It sits on the same base, and this model is detached.
        """
        name = self._one(name)
        parts = states(self, name)
        return self._instead(name, keyed(self, name).extended(more), parts)

    def _instead(self, name: str, method: Method, parts: States) -> "Adapted":
        """A model with one other adapter, of the same heads."""
        pinned = {"sites": tuple(site.name for site in self.sites[name]), "top": None}
        other = Adapted(
            self.detach(),
            self.table,
            {name: method.model_copy(update=pinned)},
            card=self.card,
            backbone=self.backbone,
        )
        fill(other, name, parts)
        other.heads.update(dict(self.heads.items()))
        other.saved = self.saved
        return other.eval()

    def push_to_hub(
        self,
        repo: str,
        name: str | None = None,
        *,
        private: bool | None = None,
        token: str | None = None,
        revision: str | None = None,
        message: str = "Upload adapter",
    ) -> str:
        """Save one adapter into a repository of the Hugging Face hub, made if need be; the commit's address.

        Only the adapter goes there, not the base. `load("org/name")` opens it again. Raises ConfigError with
        what the hub said.
        """
        with TemporaryDirectory() as folder:
            self.save(Path(folder) / "adapter", name)
            return hub.publish(Path(folder) / "adapter", repo, private, token, revision, message)

    @classmethod
    def from_pretrained(cls, address: str | Path, base: nn.Module | None = None, **options: Any) -> "Adapted":
        """The same as `load`, under the name that transformers and PEFT have for it."""
        return load(address, base, **options)

    def merge_and_unload(self, *names: str) -> nn.Module:
        """A stock model with the adapters (default: the active ones) in its weights; this one is detached.

        The base is left as it was: the merged model is a copy. Raises NotMergeable, naming the site, where an
        adapter is no change of one weight; nothing has happened then.
        """
        merged = merge(self, *names)
        self.detach()
        return merged

    # -------------------------------------------------------------------------------------------------------

    def _one(self, name: str | None) -> str:
        if name is None and len(self.methods) != 1:
            raise ConfigError(
                f"name: there are {', '.join(self.methods) or 'no adapters'}; say which is meant"
            )
        name = name if name is not None else next(iter(self.methods))
        self._known((name,))
        return name


def load(
    address: str | Path | None,
    base: nn.Module | str | Path | None = None,
    *,
    weights: str | Path | None = None,
    device: str | torch.device | None = None,
    revision: str | None = None,
    offline: bool = False,
    **options: Any,
) -> Adapted:
    """Open a saved adapter, by folder or hub id, on the model that it was trained on.

    Inside the model it has the name of its folder or repository; those that were trained together with it are
    opened too and run with it. The model is found by the address in adapter.json, or it is `base`: a stock
    model in memory, or another address (which may be called `weights`, as everywhere else). `options` (such
    as `context="full"`) replace what it was trained with. Without any adapter (None) it is the bare model.

    Raises ConfigError for another model than that, or where none is given and it has no address.

    >>> model = load("runs/tel")                                                    # doctest: +SKIP
    >>> with model.using(): model.generate(input_features=mel)    # the bare base   # doctest: +SKIP
    """
    if isinstance(base, str | Path):
        base, weights = None, base
    if address is None:
        backbone = open_backbone("whisper", weights or DEFAULT_WEIGHTS, revision, offline, **options)
        bare = Adapted(backbone.module, backbone.sites(), {}, card=backbone.card(), backbone=backbone)
        return bare if device is None else bare.to(device)
    saved = save.read(hub.locate(address, revision, offline))
    names = named(with_companions(saved, offline), saved, address)
    methods, rooms = called(names, offline)
    if base is None:
        backbone = backbone_of(saved, weights, offline, **options)
        model = Adapted(
            backbone.module, backbone.sites(), methods, rooms, card=backbone.card(), backbone=backbone
        )
        if saved.base_trained:
            saved.load_base(backbone.encoder_parameters())
        model.heads.update(heads_of(saved, backbone))
    else:
        if given := [*options, *(["weights"] if weights else [])]:
            raise ConfigError(f"{given[0]}: is for weights by address, and base is a model in memory")
        model = _on_base(base, saved, methods, rooms)
    model.saved = saved
    model.heads.to(model.device)
    filled(model, names).eval()
    return model if device is None else model.to(device)


def _on_base(
    base: nn.Module, saved: Saved, methods: Mapping[str, Method], rooms: Mapping[str, Room]
) -> Adapted:
    found = look_at(base)
    saved.check_backbone(found.card)
    if saved.base_trained or "decoder" in saved.head_config:
        what = "weights of its own for the encoder" if saved.base_trained else "a waveform decoder"
        raise ConfigError(f"{saved.folder} brings {what}, which needs the address of the base: give weights=")
    model = Adapted(base, found.sites, methods, rooms, card=found.card)
    model.heads.update(heads_of(saved, _Size(found.card.dim)))
    return model


@dataclass
class _Size:
    dim: int
    frame_rate: float = 0.0
