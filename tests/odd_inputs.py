"""Texts as the world has them, and what is no text: what property tests draw from."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

COMMON = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("few", max_examples=5, **COMMON)
settings.register_profile("many", max_examples=200, **COMMON)

FAMILY = "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
ODD_TEXTS = [
    "",
    " ",
    "\n\t \u3000",
    "a",
    "\0",
    "a\0b",
    "\u202eabc\u202c",
    "\u05e2\u05d1\u05e8\u05d9\u05ea \u0648\u0639\u0631\u0628\u064a\u0629",
    "e\u0301\u0323\u0302" * 5,
    "\u0301",
    FAMILY,
    "\U0001f1e9\U0001f1ea\U0001f3f4\U000e0067\U000e007f",
    "\u6f22\u5b57\u4eee\u540d\u4ea4\u3058\u308a\u6587",
    "\u0e44\u0e21\u0e48\u0e21\u0e35\u0e0a\u0e48\u0e2d\u0e07\u0e27\u0e48\u0e32\u0e07",
    "\ufeff",
    "\ufdd0 the text \ufdd1",
    "\uffff",
    "\u2028",
    "\r\n",
    "\ufdfa",
    "</s>",
    "[INST] a [/INST]",
    "{text}",
    "{{ 1/0 }}",
    "x" * 300,
    " " * 300,
    "a b " * 200,
]
HALVES = st.characters(categories=["Cs"])

texts = st.one_of(
    st.sampled_from(ODD_TEXTS),
    st.text(max_size=40),
    st.lists(st.sampled_from([*"ab \n\0", "\u0301", FAMILY, "\u6f22"]), max_size=20).map("".join),
)
batches = st.lists(texts, min_size=1, max_size=8)
no_texts: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.binary(max_size=5),
    st.dates(),
    st.frozensets(st.integers(), max_size=2),
    st.lists(st.integers(0, 9), max_size=2),
    st.builds(np.float32, st.integers(0, 9)),
    st.builds("{}{}{}".format, st.text(max_size=3), HALVES, st.text(max_size=3)),
)
containers = st.sampled_from(
    [
        list,
        tuple,
        iter,
        lambda rows: (row for row in rows),
        lambda rows: np.array([*rows, None], dtype=object)[:-1],
        lambda rows: [np.str_(row) for row in rows],
    ]
)
