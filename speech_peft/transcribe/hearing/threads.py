"""Several batches at a time, for an engine that can: a thread for each, and a share of the processor."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")


class Threads:
    """So many threads, started when there is work for more than one."""

    def __init__(self, count: int):
        self.count = count

    def map(self, work: Callable[[A], B], of: Sequence[A]) -> Iterator[B]:
        """What `work` makes of each, in order; by the caller itself where no second thread would help."""
        if self.count == 1 or len(of) == 1:
            return map(work, of)
        return self._started.map(torch.inference_mode()(work), of)

    @cached_property
    def _started(self) -> ThreadPoolExecutor:
        own = torch.get_num_threads()
        ready = threading.Barrier(self.count + 1)

        def alone() -> None:
            torch.set_num_threads(max(1, own // self.count))
            ready.wait()

        threads = ThreadPoolExecutor(self.count, "hearing", alone)
        for _ in range(self.count):
            threads.submit(int)
        ready.wait()
        torch.set_num_threads(own)  # of threads that are still to come
        return threads
