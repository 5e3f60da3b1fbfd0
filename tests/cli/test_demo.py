from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from typer.testing import CliRunner

from st_llm2vec import decoder_path
from st_llm2vec.cli import app
from st_llm2vec.cli import walkthrough as demo


@pytest.fixture
def decoder() -> str:
    """All layers of the decoder in the box: what the demo shows depends on what it finds."""
    return decoder_path()


def test_the_corpus_is_in_order() -> None:
    rows = [json.loads(line) for line in demo.CORPUS.read_text(encoding="utf-8").splitlines()]
    assert [row["id"] for row in rows] == list(range(1, len(rows) + 1))
    assert all(set(row) == {"id", "title", "text"} for row in rows)
    assert len({row["text"] for row in rows}) == len(rows) >= 40


@pytest.mark.slow
def test_the_demo_runs_from_end_to_end(decoder: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--decoder", decoder, "--keep", str(tmp_path / "kept")])
    assert result.exit_code == 0, result.stderr
    shown = " ".join(result.stdout.split())
    assert all(query in shown for query in demo.QUERIES)
    assert "no training as an encoder" in shown
    assert "Vectors agree: the largest cosine distance over" in shown
    assert "(plain SentenceTransformer, st_llm2vec not importable)." in shown
    assert SentenceTransformer(str(tmp_path / "kept")).encode("a text").shape == (192,)


def test_most_queries_find_their_passage(decoder: str) -> None:
    rows = [json.loads(line) for line in demo.CORPUS.read_text(encoding="utf-8").splitlines()]
    encoder = demo.convert(decoder, demo.RECIPE)
    scores = encoder.encode(list(demo.QUERIES)) @ encoder.encode([row["text"] for row in rows]).T
    wanted = ("The compass", "Swallows", "Violins", "The moon", "The doctor's visit")
    first = [rows[row]["title"] for row in scores.argmax(axis=1)]
    assert sum(title == one for title, one in zip(first, wanted, strict=True)) >= 4


def test_other_vectors_are_an_error(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def disagree(folder: Path, texts: list[str], **_: object) -> SimpleNamespace:
        vectors = SentenceTransformer(str(folder)).encode(texts)
        vectors[3] = vectors[4]
        return SimpleNamespace(vectors=vectors[None])

    monkeypatch.setattr(demo, "read_without_package", disagree)
    result = CliRunner().invoke(app, ["demo", "--decoder", decoder])
    assert result.exit_code == 1
    assert "The vectors do not agree" in result.stderr
    assert "Vectors agree" not in result.stdout


def test_vectors_that_are_not_numbers_do_not_agree(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(folder: Path, texts: list[str], **_: object) -> SimpleNamespace:
        return SimpleNamespace(vectors=np.full((1, len(texts), 192), np.nan))

    monkeypatch.setattr(demo, "read_without_package", nothing)
    result = CliRunner().invoke(app, ["demo", "--decoder", decoder])
    assert result.exit_code == 1
    assert "The vectors do not agree" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "1"], "--port is for the page: add --web."),
        (["--open"], "--open is for the page: add --web."),
        (["--decoder", "a", "--decoder", "b"], "--web compares several"),
        (["--web", "--keep", "a"], "--keep is not for --web"),
    ],
)
def test_options_that_do_not_go_together_are_refused(arguments: list[str], sentence: str) -> None:
    done = CliRunner().invoke(app, ["demo", *arguments])
    assert done.exit_code == 1
    assert sentence in " ".join(done.stderr.split())


def test_without_starlette_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "starlette" else find(name, *rest)
    )
    done = CliRunner().invoke(app, ["demo", "--web"])
    assert done.exit_code == 1
    assert 'pip install "st-llm2vec[web]"' in " ".join(done.stderr.split())
