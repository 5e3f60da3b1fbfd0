"""Work in several threads: in order, with errors that reach the caller, and the caller's threads as they were."""

from __future__ import annotations

import pytest
import torch

from st_llm2vec.encoding.cpu_streams import in_streams


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
