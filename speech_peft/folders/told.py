"""What adapters that differ by task or language are told of recordings: what a user says, else a manifest."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch

from ..core.keyed.keyed import Keyed
from ..core.listening.reference import Reference
from ..core.model import AdaptedModel
from ..core.passage.ids import context_of
from ..errors import ConfigError, did_you_mean
from .inputs import Job
from .reader import Source


def telling(
    model: AdaptedModel,
    sources: Sequence[Source],
    task: str | None,
    languages: Sequence[str | None],
    device: torch.device,
    reference: Reference | None = None,
    views: int = 1,
) -> AbstractContextManager[object]:
    """Inside, each row of a batch is of the recording that is named for it here.

    `task` and `reference` are those of all, and so many rows as there are `views` are one recording. A name
    in a manifest that no adapter knows counts as none.
    """
    methods = _differing(model)
    if not (methods or reference or views > 1) or not sources:
        return nullcontext()
    jobs = [source if isinstance(source, Job) else None for source in sources]
    tasks = [task or (job.task if job else "") for job in jobs]
    spoken = [said or (job.lang if job else "") for said, job in zip(languages, jobs, strict=True)]
    known = {"task": _known(methods, "task", tasks), "language": _known(methods, "language", spoken)}
    return model.context(replace(context_of(methods, known, device), reference=reference, views=views))


def check_task(model: AdaptedModel, task: str | None) -> None:
    """Raise ConfigError for a task that no adapter which runs knows."""
    names = [name for method in _differing(model) if method.key == "task" for name in method.names]
    if task is not None and not names:
        raise ConfigError(f"adapter task {task!r}: no adapter that runs here differs by task")
    if task is not None and task not in names:
        raise ConfigError(f"adapter task: no adapter knows {task!r}. {did_you_mean(task, names)}")


def _differing(model: AdaptedModel) -> list[Keyed]:
    return [method for name in model.active if isinstance(method := model.methods[name], Keyed)]


def _known(methods: Sequence[Keyed], key: str, names: Sequence[str]) -> list[str]:
    known = {name for method in methods if method.key == key for name in method.names}
    return [name if name in known else "" for name in names]
