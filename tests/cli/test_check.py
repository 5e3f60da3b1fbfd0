"""``st-llm2vec check``: a table, JSON, and an exit code for pipelines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from st_llm2vec import TextEncoder
from st_llm2vec.checking.vectors import attention, padded
from st_llm2vec.proof.tolerances import Tolerance

from ..checking.conftest import converted, encoder, short  # noqa: F401
from .test_import import run


@pytest.fixture
def saved(encoder: Callable[..., TextEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:  # noqa: F811
    monkeypatch.setattr("st_llm2vec.checking.checks.CHECKS", {"attention": attention, "padding": padded})
    encoder().save_pretrained(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_a_table_of_what_was_found(saved: Path) -> None:
    done = run("check", saved, "--dtype", "bfloat16")
    assert done.exit_code == 0, done.output
    assert f"{saved} is what it promises." in done.stdout.replace("\n", "")
    assert (
        "padding on the left" in done.stdout
        and "bfloat16" in done.stdout
        and "float16 " not in done.stdout.split("bfloat16")[0]
    )
    assert "Checking padding …" in done.stderr


def test_a_failure_is_an_exit_code(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("st_llm2vec.checking.subject.VECTORS", Tolerance(-1.0, -1.0, "nothing is as near as that"))
    done = run("check", saved, "--json", "--dtype", "float32")
    assert done.exit_code == 1
    found = json.loads(done.stdout)
    assert not found["passed"]
    results = {one["check"]: one["result"] for one in found["findings"]}
    assert results["padding on the left"] == "fail" and results["attention"] == "pass"


def test_a_decoder_is_no_encoder(decoder: str) -> None:
    done = run("check", decoder)
    assert done.exit_code == 1 and "so it is not an encoder yet" in done.stderr.replace("\n", " ")
