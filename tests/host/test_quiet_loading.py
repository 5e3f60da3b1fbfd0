from __future__ import annotations

import gc

import pytest

from st_llm2vec.host.quiet_loading import without_collection


def test_the_collector_pauses_and_is_left_as_it_was() -> None:
    with without_collection():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(KeyError), without_collection():
        raise KeyError
    assert gc.isenabled()


def test_a_caller_who_has_switched_it_off_finds_it_off() -> None:
    gc.disable()
    try:
        with without_collection():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
