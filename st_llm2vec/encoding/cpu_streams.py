"""Several batches in work at a time, each in a thread with cores of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from typing import TypeVar

import torch

KEPT_BYTES = 30 * 2**20

Item = TypeVar("Item")
Result = TypeVar("Result")


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
    if streams == 1 or len(first) < 2:
        yield from map(work, chain(first, items))
        return
    _keep_freed_memory()
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(streams, "encode", torch.set_num_threads, (max(1, threads // streams),))
    pending: deque[Future[Result]] = deque()
    try:
        for item in chain(first, items):
            pending.append(pool.submit(work, item))
            if len(pending) > 2 * streams:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # what a thread sets, some libraries hold for all of them


def _keep_freed_memory() -> None:
    """Let the allocator keep what a layer frees for the next one, and not hand it back to the system.

    Once a chunk of this size was freed, glibc maps no chunk up to that size on its own and trims less (mallopt(3),
    M_MMAP_THRESHOLD). Otherwise each layer's states are new pages, which costs a fifth of the time of short batches.
    """
    torch.empty(KEPT_BYTES, dtype=torch.uint8)
