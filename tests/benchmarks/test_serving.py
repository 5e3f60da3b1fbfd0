"""The table of servers says what was measured, and no verdict is contradicted by it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.serving import DECODERS, MARKS, RESULTS, TARGET, disagreement, table, wanted
from st_llm2vec.serving.verdicts import SPELT as SENTENCE

SAME = {"documents": 1e-9, "queries": 1e-9, "spelt": 1e-9}


def cell(outcome: str, reason: str = "", **further: Any) -> dict[str, Any]:
    return {"server": "vLLM", "outcome": outcome, "reason": reason, **SAME, **further}


@pytest.mark.parametrize(
    "agreeing",
    [
        cell("exact"),
        cell("documents only", queries=0.1),
        cell("wrong", documents=0.1),
        cell("exact", SENTENCE, spelt=0.1),
        {"server": "vLLM", "outcome": "wrong", "reason": "", "refused": "no"},
        {"server": "vLLM", "outcome": "exact", "reason": "", "not_run": "no"},
    ],
)
def test_what_agrees(agreeing: dict[str, Any]) -> None:
    assert disagreement(agreeing) is None


@pytest.mark.parametrize(
    "contradicted",
    [
        cell("exact", documents=0.1),
        cell("exact", queries=0.1),
        cell("exact", spelt=0.1),
        cell("exact", SENTENCE),
        cell("needs this command", documents=0.1),
        cell("documents only"),
        cell("documents only", documents=0.1, queries=0.1),
        cell("wrong"),
        {"server": "vLLM", "outcome": "exact", "reason": "", "refused": "no"},
    ],
)
def test_what_contradicts(contradicted: dict[str, Any]) -> None:
    assert disagreement(contradicted)


def test_the_page_has_the_kept_rows_and_no_verdict_is_contradicted() -> None:
    rows = [json.loads(line) for line in RESULTS.read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: wanted().index((row["decoder"], row["recipe"])))
    page = TARGET.read_text(encoding="utf-8")
    assert page.split(MARKS[0])[1].split(MARKS[1])[0] == table(rows)
    assert {row["decoder"] for row in rows} == set(DECODERS)
    assert [found for row in rows for one in row["cells"] if (found := disagreement(one))] == []
