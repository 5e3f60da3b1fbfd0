from __future__ import annotations

import json
from pathlib import Path

import pytest

from st_llm2vec.cli.embed import _duration, _speed
from st_llm2vec.corpus import Progress, read_embeddings
from tests.cli.test_cli import folder, loud_again, run, succeed

__all__ = ["folder", "loud_again"]


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    rows = [{"key": f"k{n}", "body": f"Ship {n} left the harbour."} for n in range(20)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"key": "k20"}]))
    return path


def test_a_corpus_becomes_shards_with_ids(folder: str, corpus: Path, tmp_path: Path) -> None:
    arguments = ["embed", folder, "-i", corpus, "-o", tmp_path / "o", "--column", "body", "--id-column", "key"]
    first = succeed(*arguments, "--shard-rows", 8, "--batch-size", 4)
    assert "0 of 21 rows are done" in first.stderr
    assert f"20 vectors in 3 shards in {tmp_path / 'o'}; 1 rows were left out" in first.stdout
    assert [len(ids) for ids, _ in read_embeddings(tmp_path / "o")] == [8, 8, 4]
    again = succeed(*arguments, "--shard-rows", 8, "--json")
    summary = json.loads(again.stdout)
    assert (summary["rows"], summary["embedded"], summary["rejected"], summary["shards"]) == (21, 20, 1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "neither was given"),
        (["--input", "nowhere.jsonl"], "There is no file nowhere.jsonl"),
        (["--input", "{corpus}"], "has no column 'text'; it has body, key"),
        (["--input", "{corpus}", "--column", "body", "--precision", "int4"], "precision='int4' is not one of"),
        (["--input", "{corpus}", "--column", "body", "--as", "poem"], "task='poem' is not one of document, query"),
    ],
)
def test_errors_are_one_sentence(options: list[str], message: str, folder: str, corpus: Path, tmp_path: Path) -> None:
    given = [option.format(corpus=corpus) for option in options]
    result = run("embed", folder, "--output", tmp_path / "o", *given)
    assert result.exit_code == 1 and message in " ".join(result.stderr.split())
    assert not (tmp_path / "o" / "embeddings.json").exists()


def test_an_unknown_encoder_is_one_sentence(corpus: Path, tmp_path: Path) -> None:
    result = run("embed", "no/such/encoder/here", "-i", corpus, "--column", "body", "-o", tmp_path / "o")
    assert result.exit_code == 1 and "There is no folder no/such/encoder/here" in result.stderr


def test_speed_and_time_left_are_readable() -> None:
    progress = Progress(100, 1000, 9000, 12.4, 1234.5, 3700)
    assert _speed(progress) == "12 texts/s, 1,234 tokens/s, 1 h 1 min left"
    assert [_duration(seconds) for seconds in (5, 70, 90_061)] == ["5 s", "1 min 10 s", "1 d 1 h"]
