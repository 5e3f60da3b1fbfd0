"""Encode shards in this process, or in one process for each device."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from st_llm2vec.corpus.settings import EmbeddingSettings
from st_llm2vec.corpus.shard_encoder import Advance, ShardEncoder, ShardRows
from st_llm2vec.corpus.shard_files import ShardReport

WAITING_PER_DEVICE = 2


class Encoders(Protocol):
    """What encodes shards, wherever it is."""

    def describe(self) -> dict[str, Any]:
        """What has to be the same when a job is resumed."""

    def calibrate(self, texts: Sequence[str]) -> np.ndarray:
        """The ranges for int8 vectors."""

    def process(self, shards: Iterator[ShardRows], advance: Advance) -> Iterator[ShardReport]:
        """Embed and write shards; yield what became of each."""


def open_encoders(
    settings: EmbeddingSettings, folder: Path, devices: Sequence[str] | None
) -> AbstractContextManager[Encoders]:
    """Load the encoder on every device.

    Args:
        settings: How texts become vectors.
        folder: The job's folder.
        devices: The devices; all GPUs if not given, and the one that Sentence Transformers chooses if there are none.

    Returns:
        A context in which shards can be encoded.
    """
    if not devices:
        gpus = torch.cuda.device_count()
        devices = [f"cuda:{number}" for number in range(gpus)] if gpus > 1 else []
    if len(devices) > 1:
        return ManyProcesses(settings, folder, devices)
    return nullcontext(ThisProcess(settings, folder, devices[0] if devices else None))


class ThisProcess:
    """One device, no other process."""

    def __init__(self, settings: EmbeddingSettings, folder: Path, device: str | None) -> None:
        self.encoder = ShardEncoder(settings, folder, device)
        self.describe = self.encoder.describe
        self.calibrate = self.encoder.calibrate

    def process(self, shards: Iterator[ShardRows], advance: Advance) -> Iterator[ShardReport]:
        """One shard after the other."""
        for shard in shards:
            yield self.encoder.process(shard, advance)


class ManyProcesses:
    """One process for each device; a free one takes the next shard, and a few wait in memory."""

    def __init__(self, settings: EmbeddingSettings, folder: Path, devices: Sequence[str]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pools = [
            ProcessPoolExecutor(1, context, initializer=_begin, initargs=(settings, folder, device))
            for device in devices
        ]
        self.devices = list(devices)

    def __enter__(self) -> Encoders:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in self.pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self.pools:
            pool.shutdown(wait=True)

    def describe(self) -> dict[str, Any]:
        """Ask every process, so that all have loaded, and compare."""
        first, *others = [self._result(one) for one in [pool.submit(_call, "describe") for pool in self.pools]]
        if any(other != first for other in others):
            raise ValueError(f"The encoder is not the same on {', '.join(self.devices)}: {first} and {others}.")
        return first

    def calibrate(self, texts: Sequence[str]) -> np.ndarray:
        """Let the first process do it."""
        return self._result(self.pools[0].submit(_call, "calibrate", list(texts)))

    def process(self, shards: Iterator[ShardRows], advance: Advance) -> Iterator[ShardReport]:
        """Keep every process busy."""
        waiting: dict[Future[ShardReport], int] = {}
        load = [0] * len(self.pools)
        shards = iter(shards)
        while True:
            while min(load) < WAITING_PER_DEVICE and (shard := next(shards, None)) is not None:
                free = load.index(min(load))
                waiting[self.pools[free].submit(_call, "process", shard)] = free
                load[free] += 1
            if not waiting:
                return
            for done in wait(waiting, return_when=FIRST_COMPLETED).done:
                load[waiting.pop(done)] -= 1
                report = self._result(done)
                advance(report.rows, report.tokens)
                yield report

    @staticmethod
    def _result(future: Future[Any]) -> Any:
        try:
            return future.result()
        except BrokenProcessPool as error:
            raise OSError(
                "A process died, perhaps for want of memory. Finished shards are whole; run the same command again, "
                "perhaps with a smaller --batch-size, and it goes on from there."
            ) from error


# In the processes ---------------------------------------------------------------------------------------

_encoder: Callable[[], ShardEncoder]


def _begin(settings: EmbeddingSettings, folder: Path, device: str) -> None:
    """Load the encoder when it is first asked for, so that its errors reach the asker; die with the parent."""
    global _encoder
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _encoder = cache(partial(ShardEncoder, settings, folder, device))


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(method: str, *arguments: Any) -> Any:
    return getattr(_encoder(), method)(*arguments)
