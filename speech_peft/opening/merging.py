"""Saved adapters made into one: opened on their base, joined, and written with what they were."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from ..compose.cards.card import cross_track
from ..compose.join import join
from ..compose.joining import Activations, Joined, Joining
from ..core.passage.hooks import detach
from ..core.saved import save
from ..core.saved.save import Origin, Saved
from ..errors import ConfigError
from .probing import activations
from .together import Together, load_together


def merge_adapters(
    adapters: Sequence[str | Path],
    out: str | Path,
    how: str = "average",
    *,
    probe: str | Path | None = None,
    factors: Sequence[float] = (),
    rank: int | None = None,
    density: float = 0.5,
    anchor: int | None = None,
    seed: int = 0,
    across: bool = False,
    weights: str | Path | None = None,
    offline: bool = False,
) -> Joined:
    """Make one adapter of several that were trained on one base, and write it as the folder `out`.

    `how` is average, sum, mera, cat, svd, ties or dare (`compose/join.py`); `factors`, `rank`, `density`,
    `anchor` and `seed` are those of `compose.joining.Joining`. With `probe`, a manifest or folder of
    recordings, mera tells inner units apart by what they do on them, and else by their weights. Adapters that
    learned tasks of two families are refused unless `across`. What is written can be trained further, and its
    adapter.json names what it was made of.

    Raises ConfigError naming the adapter and the reason where they cannot be joined so.

    >>> merge_adapters(["runs/babble", "runs/rooms"], "runs/noise", "mera")         # doctest: +SKIP
    """
    joining = Joining(how, tuple(factors), rank, density, anchor, seed)  # type: ignore[arg-type]
    if probe is not None and how != "mera":
        raise ConfigError(f"probe: only mera listens to recordings, and this is {how}")
    if Path(out).exists():
        raise ConfigError(f"{out} exists already; give a new name or delete it")
    opened = load_together(adapters, weights, offline=offline)
    saved = {name: _saved(opened, name) for name in opened.parts}
    _check(list(saved.values()), across)
    heads = _heads(opened)
    inside = [name for name, _ in opened.parts.values()]
    heard: Activations | None = None
    if probe is not None:
        heard = activations(opened.backbone, opened.model, inside, probe)
    joined = join(opened.model, inside, joining, heard)
    detach(opened.backbone.module)
    model = joined.attached(opened.backbone.module, opened.backbone.sites(), "adapter")
    first = next(iter(saved.values()))
    save.write(
        out,
        model,
        "adapter",
        opened.backbone.card(),
        heads=heads,
        head_config=first.head_config,
        joined=_origin(saved, joining, joined, probe),
        readme=_readme(saved, joining),
    )
    return joined


def _saved(opened: Together, name: str) -> Saved:
    saved = opened.parts[name][1].saved
    assert saved is not None
    if saved.manifest.together:
        others = ", ".join(k for k, v in saved.manifest.together.items() if v != ".")
        raise ConfigError(f"{name} was trained together with {others}, and alone it is not what it was")
    return saved


def _check(saved: Sequence[Saved], across: bool) -> None:
    first, *others = saved
    for other in others:
        if not across and (why := cross_track(first, other)):
            raise ConfigError(
                f"{first.folder} and {other.folder} did not learn tasks of one family: {why}. Take others, "
                "or --across to make one of these all the same"
            )


def _heads(opened: Together) -> dict[str, nn.Module]:
    """Their heads, which have to be of one kind; where they differ, the mean of them."""
    each = {name: one for name, (_, one) in opened.parts.items()}
    (first, one), *others = each.items()
    for name, other in others:
        if other.saved.head_config != one.saved.head_config:  # type: ignore[union-attr]
            raise ConfigError(f"{name} and {first} have other heads, of which no one head can be made")
    for key, head in one.heads.items():
        states = [other.heads[key].state_dict() for other in each.values()]
        differ = [k for k, own in states[0].items() if not all(torch.equal(own, s[k]) for s in states)]
        if differ and key == "decoder":
            raise ConfigError(f"{first} and others have waveform decoders that differ, which have no mean")
        mean = {k: torch.stack([s[k].double() for s in states]).mean(0) for k in differ}
        head.load_state_dict(states[0] | mean)
    return one.heads


def _origin(saved: dict[str, Saved], joining: Joining, joined: Joined, probe: str | Path | None) -> Origin:
    settings: dict[str, object] = {}
    if joining.how in ("ties", "dare"):
        settings["density"] = joining.density
    if joining.how == "dare":
        settings["seed"] = joining.seed
    if joined.lost:
        settings["lost"] = round(joined.lost, 6)
    if joined.alignment is not None:
        settings |= {
            "anchor": list(saved)[joined.alignment.anchor],
            "moved": round(joined.alignment.moved, 4),
        }
        settings["by"] = "weights" if probe is None else f"activations on {probe}"
    return Origin(
        how=joining.how,
        adapters={name: one.digest for name, one in saved.items()},
        factors=tuple(joining.factors_of(len(saved))),
        settings=settings,
    )


def _readme(saved: dict[str, Saved], joining: Joining) -> str:
    lines = "".join(f"- {name}\n" for name in saved)
    head = f"# {joining.how} of {len(saved)} adapters\n\n"
    return f"{head}{lines}\n`adapter.json` has their digests and the settings.\n"
