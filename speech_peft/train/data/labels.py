"""The classes of a training run: which there are, which clips show them, and what goes wrong with them."""

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...audio.manifest import Row
from ...audio.rows.listing import pick
from ...errors import ConfigError, did_you_mean
from ...recipe.tasks import ClassifyConfig


def split(label: str | None) -> list[str]:
    """The labels that a cell holds: "dog;rain" is two."""
    return [part.strip() for part in (label or "").split(";") if part.strip()]


def single(rows: Sequence[Row], part: str) -> None:
    """Refuse a cell of several labels where a clip may have one."""
    for row in rows:
        if len(split(row.label)) != 1:
            raise ConfigError(
                f"data.{part}: row {row.id!r} has the label {row.label!r}, which is not one label; clips "
                "that are several things need task.multi_label=true"
            )


def classes(rows: Sequence[Row], wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The labels of the training rows, sorted, or in the order of `task.labels`: the same ones."""
    seen: dict[str, Row] = {}
    for row in rows:
        for label in split(row.label):
            seen.setdefault(label, row)
    if wanted is None:
        if len(seen) < 2:
            raise ConfigError(
                f"data.train: every clip is {next(iter(seen))!r}; there is nothing to tell apart"
            )
        return tuple(sorted(seen))
    for label, row in seen.items():
        if label not in wanted:
            raise ConfigError(
                f"data.train: row {row.id!r} has the label {label!r}, which task.labels has not. "
                f"{did_you_mean(label, wanted)}"
            )
    if idle := [label for label in wanted if label not in seen]:
        raise ConfigError(
            f"task.labels: no training clip has the label {idle[0]!r}. {did_you_mean(idle[0], seen)}"
        )
    return tuple(wanted)


def all_known(rows: Sequence[Row], labels: Sequence[str], part: str) -> None:
    """Refuse a label that training never met: no score could count it."""
    for row in rows:
        for label in split(row.label):
            if label not in labels:
                raise ConfigError(
                    f"data.{part}: row {row.id!r} ({row.audio}) has the label {label!r}, and no "
                    f"training clip has it. {did_you_mean(label, labels)}"
                )


def none_lost(before: Iterable[Row], after: Iterable[Row], part: str, reasons: dict[str, str]) -> None:
    """Refuse a class all of whose clips are unusable; `reasons` says why, by id."""
    left = {label for row in after for label in split(row.label)}
    for row in before:
        for label in split(row.label):
            if label not in left:
                raise ConfigError(
                    f"data.{part}: no clip of the class {label!r} can be used. First: row {row.id!r} "
                    f"({row.audio}): {reasons.get(row.id, 'not read')}"
                )


def few(rows: Sequence[Row], per_class: int, seed: int) -> Sequence[Row]:
    """At most so many clips of each class, in their order.

    The clips of a class are ranked by a hash of seed and id: what 2 clips per class chose is part of what 4
    choose, on every machine and whatever other rows there are.
    """
    return pick(rows, few_places(rows, per_class, seed))


def few_places(rows: Sequence[Row], per_class: int, seed: int) -> list[int]:
    """Where the rows of `few` are."""
    ranks, cells = _ranked(rows, seed)
    taken: Counter[str] = Counter()
    chosen = []
    for place in np.argsort(ranks, kind="stable"):
        labels = split(cells[place])
        if all(taken[label] < per_class for label in labels):
            taken.update(labels)
            chosen.append(int(place))
    return sorted(chosen)


def mixed(rows: Sequence[Row], first: int) -> Sequence[Row]:
    """So many of the rows, in their order, of every class its share: manifests are often sorted by class."""
    ranks, cells = _ranked(rows, 0)
    groups: dict[str, list[int]] = defaultdict(list)
    for place in np.argsort(ranks, kind="stable"):
        groups[cells[place]].append(int(place))
    share = np.zeros(len(rows))
    for places in groups.values():
        share[places] = (np.arange(len(places)) + 0.5) / len(places)
    return pick(rows, np.sort(np.argsort(share, kind="stable")[:first]))


def _ranked(rows: Iterable[Row], seed: int) -> tuple[np.ndarray, list[str]]:
    """A number by which each row is ranked, the same everywhere, and its label."""
    ranks, cells, known = array("Q"), [], {}
    for row in rows:
        digest = hashlib.blake2b(f"{seed}|{row.id}".encode(errors="surrogatepass"), digest_size=8).digest()
        ranks.append(int.from_bytes(digest, "big"))
        cells.append(known.setdefault(row.label or "", row.label or ""))  # one string a class, not a row
    return np.frombuffer(ranks, np.uint64), cells


def targets(cells: Sequence[str], labels: Sequence[str]) -> Float[Tensor, "b c"]:
    """1 where a clip has the label."""
    index = {label: i for i, label in enumerate(labels)}
    found = torch.zeros(len(cells), len(labels))
    for row, cell in enumerate(cells):
        for label in split(cell):
            found[row, index[label]] = 1.0
    return found


def weights(rows: Sequence[Row], labels: Sequence[str], config: ClassifyConfig) -> Float[Tensor, " c"] | None:
    """Of the classes in the loss; None where every clip weighs the same.

    With one label a clip, N / (C n_c), whose mean over the clips is 1. With several, of a class's positive
    clips, (N - n_c) / n_c: then they weigh as much together as those without the label.
    """
    if config.class_weights == "none":
        return None
    seen = Counter(label for row in rows for label in set(split(row.label)))
    counts = torch.tensor([float(seen[label]) for label in labels])
    if config.multi_label:
        return (len(rows) - counts).clamp(min=1.0) / counts
    return len(rows) / (len(labels) * counts)
