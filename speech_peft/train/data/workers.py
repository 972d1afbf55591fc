"""The processes that load clips, and their end: whatever ends the run, they never hold it up."""

import atexit
import multiprocessing
import signal
from multiprocessing.context import ForkContext, ForkProcess
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from .heard import gather


def loader(clips: Dataset[Any], batches: Any, workers: int) -> DataLoader[Any]:
    """Batches of clips, loaded in this process or in others that are forked from it."""
    return DataLoader(
        clips,
        batch_sampler=batches,
        collate_fn=gather,
        num_workers=workers,
        worker_init_fn=_start if workers else None,
        multiprocessing_context=_Forks() if workers else None,
    )


class _Worker(ForkProcess):
    """A process that does not hear SIGTERM; what is to end it kills it. It holds nothing but copies."""

    def terminate(self) -> None:
        self.kill()


class _Forks(ForkContext):
    Process = _Worker  # type: ignore[assignment]


def _start(worker: int) -> None:
    """One thread each; a signal to the whole group (Ctrl-C, a scheduler) is the main process's to answer."""
    torch.set_num_threads(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@atexit.register
def _end_workers() -> None:
    """Before Python waits for its children at exit, which would be for ever: it asks them by SIGTERM."""
    for child in multiprocessing.active_children():
        if isinstance(child, _Worker):
            child.kill()
