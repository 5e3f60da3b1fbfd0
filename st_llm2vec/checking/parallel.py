"""One encoder for many at once: threads and asyncio get the vectors that each would get alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from st_llm2vec.checking.finding import Finding
from st_llm2vec.checking.subject import Subject, encode
from st_llm2vec.proof.distance import largest_cosine_distance

THREADS = 16
TEXTS = 6

Call = Callable[[], np.ndarray]


def threads(subject: Subject) -> Iterator[Finding]:
    """Sixteen threads share the encoder."""

    def run(calls: list[Call]) -> list[np.ndarray]:
        with ThreadPoolExecutor(THREADS) as pool:
            return list(pool.map(lambda call: call(), calls))

    yield _compare(subject, f"{THREADS} threads", run)


def asyncio_tasks(subject: Subject) -> Iterator[Finding]:
    """Sixteen tasks of an event loop share it; the loop has a thread of its own, since the caller's may have one."""

    async def gather(calls: list[Call]) -> list[np.ndarray]:
        return await asyncio.gather(*(asyncio.to_thread(call) for call in calls))

    def run(calls: list[Call]) -> list[np.ndarray]:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(lambda: asyncio.run(gather(calls))).result()

    yield _compare(subject, "asyncio", run)


def _compare(subject: Subject, name: str, run: Callable[[list[Call]], list[np.ndarray]]) -> Finding:
    """Call the encoder one after the other and all at once, each with texts and a prompt of its own."""
    calls = [_call(subject) for _ in range(THREADS)]
    wanted = np.concatenate([call() for call in calls])
    distance = largest_cosine_distance(np.concatenate(run(calls)), wanted)
    said = f"{THREADS} calls of {TEXTS} texts, one after the other and at once"
    return subject.compared(name, said, distance)


def _call(subject: Subject) -> Call:
    texts, prompt = subject.draws.sample(subject.texts, k=TEXTS), subject.draws.choice(subject.prompt_names)
    return lambda: encode(subject.encoder, texts, prompt)
