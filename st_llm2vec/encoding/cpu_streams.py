"""Several batches in work at a time, each in a thread with cores of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import chain, islice
from typing import TypeVar

import torch

KEPT_BYTES = 30 * 2**20

Item = TypeVar("Item")
Result = TypeVar("Result")


class Cores:
    """The cores that PyTorch may use in this process.

    A call gives each of its threads a share of them. PyTorch hands that number on to every thread that first uses it then,
    such as a server's next one, so that while calls are in work it does not say how many cores there are.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls = 0
        self._number = 0

    def number(self) -> int:
        """How many there are, for all calls together."""
        with self._lock:
            return self._number if self._calls else torch.get_num_threads()

    @contextmanager
    def in_work(self) -> Iterator[int]:
        """A call's time in work, after which its thread has all cores again.

        Yields:
            How many there are.
        """
        with self._lock:
            self._number = self._number if self._calls else torch.get_num_threads()
            self._calls += 1
        number = self._number
        try:
            if torch.get_num_threads() != number:
                torch.set_num_threads(number)
            yield number
        finally:
            torch.set_num_threads(number)  # what a thread sets, some libraries hold for all of them
            with self._lock:
                self._calls -= 1


CORES = Cores()


def in_streams(work: Callable[[Item], Result], items: Iterator[Item], streams: int) -> Iterator[Result]:
    """Map in threads that share this thread's cores among them, a few items ahead, in order.

    Args:
        work: What to do with an item.
        items: The items.
        streams: How many threads; a single item, and all items of one stream, are worked on here.

    Yields:
        The results, in the items' order.
    """
    first = list(islice(items, 2))
    with CORES.in_work() as cores:
        if streams == 1 or len(first) < 2:
            yield from map(work, chain(first, items))
            return
        _keep_freed_memory()
        pool = ThreadPoolExecutor(streams, "encode", torch.set_num_threads, (max(1, cores // streams),))
        pending: deque[Future[Result]] = deque()
        work = _as_precise_as_here(work)
        try:
            for item in chain(first, items):
                pending.append(pool.submit(work, item))
                if len(pending) > 2 * streams:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def _as_precise_as_here(work: Callable[[Item], Result]) -> Callable[[Item], Result]:
    """The same work under this thread's ``torch.autocast``, which other threads have not."""
    if not torch.is_autocast_enabled("cpu"):
        return work
    dtype = torch.get_autocast_dtype("cpu")

    def with_autocast(item: Item) -> Result:
        with torch.autocast("cpu", dtype):
            return work(item)

    return with_autocast


def _keep_freed_memory() -> None:
    """Let the allocator keep what a layer frees for the next one, and not hand it back to the system.

    Once a chunk of this size was freed, glibc maps no chunk up to that size on its own and trims less (mallopt(3),
    M_MMAP_THRESHOLD). Otherwise each layer's states are new pages, which costs a fifth of the time of short batches.
    """
    torch.empty(KEPT_BYTES, dtype=torch.uint8)
