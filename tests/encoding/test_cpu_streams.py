"""Work in several threads: in order, with errors that reach the caller, and the caller's threads as they were."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from st_llm2vec.encoding.cpu_streams import CORES, in_streams


@pytest.fixture
def four_cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("streams", (1, 2, 3))
def test_streams_keep_the_order(streams: int) -> None:
    before = torch.get_num_threads()
    assert list(in_streams(lambda one: one * 2, iter(range(20)), streams)) == list(range(0, 40, 2))
    assert list(in_streams(lambda one: one, iter([]), streams)) == []
    assert torch.get_num_threads() == before


def test_an_error_in_a_stream_reaches_the_caller() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        list(in_streams(lambda one: 1 / (one - 3), iter(range(20)), 2))
    assert torch.get_num_threads() == before


@pytest.mark.usefixtures("four_cores")
def test_a_server_whose_threads_come_one_by_one_keeps_its_cores() -> None:
    found, together = [], Barrier(3, timeout=30)

    def call(number: int) -> None:
        time.sleep(0.1 * number)  # each first uses PyTorch while the one before it works
        found.append(CORES.number())
        list(in_streams(lambda one: time.sleep(0.03) or torch.ones(9) @ torch.ones(9), iter(range(20)), 2))
        together.wait()
        found.append(torch.get_num_threads())

    with ThreadPoolExecutor(3) as server:
        list(server.map(call, range(3)))
    assert found == [4] * 6 and CORES.number() == 4


@pytest.mark.parametrize("streams", (1, 2))
def test_autocast_holds_in_every_stream(streams: int) -> None:
    def product(size: int) -> torch.dtype:
        return (torch.ones(size, size) @ torch.ones(size, size)).dtype

    with torch.autocast("cpu", torch.bfloat16):
        assert set(in_streams(product, iter([4] * 9), streams)) == {torch.bfloat16}
    assert set(in_streams(product, iter([4] * 9), streams)) == {torch.float32}
