"""``st-llm2vec serve``; the endpoint itself is tested in integrations/serving, where LitServe is."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from typer.testing import CliRunner

from st_llm2vec.cli import app


@pytest.mark.skipif(importlib.util.find_spec("litserve") is not None, reason="litserve is installed")
def test_without_litserve_a_sentence_says_what_to_install(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", str(tmp_path)])
    assert done.exit_code == 1
    assert "pip install st-llm2vec[serve]" in " ".join(done.output.split())


@pytest.mark.skipif(importlib.util.find_spec("litserve") is None, reason="litserve is not installed")
def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["serve", str(tmp_path)])
    assert done.exit_code == 1
    assert "is no encoder" in " ".join(done.output.split())
