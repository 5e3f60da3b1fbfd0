"""The README's first lines, with the decoder that they name and another, in the type that these are stored in."""

from __future__ import annotations

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from scripts.first_lines import first_lines

from ..test_readme import run
from .models import NAMES, real_model

pytestmark = pytest.mark.real


@pytest.mark.parametrize("name", NAMES)
def test_the_first_lines_find_the_passage(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, printed = first_lines(real_model(name))
    monkeypatch.chdir(tmp_path)
    assert run(code) == printed
    again = code[code.index("passages") : code.index("encoder.save_pretrained")]
    names = {"encoder": SentenceTransformer(str(tmp_path / "my-encoder"))}
    exec(compile(f"{again}\nfound = passages[scores.argmax()]", "README.md", "exec"), names)
    assert names["found"] == printed
