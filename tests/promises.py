"""What the library promises. A test that attacks a promise is marked with it, and may record what it tried and found:

    @pytest.mark.promise(Promise.ONE_VECTOR)
    def test_in_any_batch(record_property):
        ...
        record_property("cases", 300)
        record_property("figure", "largest cosine distance 5e-13")

A figure is words and a number; of several (of a test with parameters) the page tells the largest. A test that records no cases
is one case. `make reliability` runs all of them and writes docs/reliability.md.
"""

from __future__ import annotations

from enum import Enum

import pytest


class Promise(str, Enum):
    """The promises, in the order of the page."""

    ONE_CALL = "One call makes an encoder of a decoder, and what it gives is proven rather than assumed."
    ONE_FOLDER = "A saved folder gives the vectors of the encoder in memory, here and in plain Sentence Transformers."
    NEVER_CAUSAL = "What is meant to attend in both directions and does not is refused."
    ONE_VECTOR = "A text has one vector: alone or in any batch, padded on either side or not at all, from any thread."
    EXACT_SPAN = "What is pooled is the text, to the token, and truncation cuts nothing else."
    TEXT_IS_TEXT = "A text that looks like structure (special tokens, templates, roles) is read as text."
    ANY_INPUT = "Any input gets a finite vector in its own place, or a sentence that says what is wrong and where."
    NO_CODE_RUNS = "A folder that is not what it says is refused with the reason, and none of its code runs."
    SAVED_WHOLE = "A save is all or nothing: killed at any moment, the old encoder is there or the new one."
    RESUMED = "Killed or interrupted work goes on to the same result: nothing lost, duplicated, torn or different."
    PUBLISHED_WHOLE = "What is published is whole and verified, or nothing is."
    MERGED = "Merged adapters leave the vectors where they were."
    HOST_TRAINS = "Losses train in the stock trainer, and say what they would without padding or in several processes."
    IMPORTED = "Published checkpoints give the vectors of their own implementations."
    COMPATIBLE = "Folders of earlier versions keep their vectors, and every supported version of the libraries serves."


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Report with a test which promises it attacks."""
    for item in items:
        item.user_properties += [("promise", Promise(mark.args[0]).value) for mark in item.iter_markers("promise")]
