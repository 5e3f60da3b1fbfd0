from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.quantization import quantize_embeddings

from st_llm2vec import convert, load
from st_llm2vec.corpus import EmbeddingSettings, Progress, embed_corpus, open_corpus
from st_llm2vec.corpus.corpus import Corpus
from st_llm2vec.corpus.job_folder import JobFolder
from tests.conftest import cosine_distance, crossed
from tests.corpus.conftest import ROWS, gathered, run


def test_vectors_are_the_encoders_and_ids_the_row_numbers(
    finished: Path, texts: dict[int, str], expected: np.ndarray
) -> None:
    ids, vectors = gathered(finished)
    assert ids == list(texts)
    assert vectors.dtype == torch.float32
    assert cosine_distance(vectors.numpy(), expected) < 1e-6


def test_bad_rows_are_recorded_and_counted(finished: Path, texts: dict[int, str], encoder: str) -> None:
    records = [json.loads(line) for file in sorted((finished / "rejected").iterdir()) for line in file.open()]
    left_out = [record["row"] for record in records if not record["embedded"]]
    cut = [record["row"] for record in records if record["embedded"]]
    assert left_out == sorted(set(range(ROWS)) - set(texts))
    assert cut == [number for number, text in texts.items() if len(text) > 500]
    assert {record["problem"] for record in records if not record["embedded"]} == {"null"}
    assert all("the encoder reads 64" in record["problem"] for record in records if record["embedded"])
    summary = json.loads((finished / "embeddings.json").read_text())["summary"]
    assert summary["rows"] == ROWS == summary["embedded"] + summary["rejected"]
    assert (summary["embedded"], summary["truncated"], summary["shards"]) == (len(texts), len(cut), 5)
    loaded = load(encoder)
    features = [loaded.preprocess([text], prompt=loaded.prompts["document"]) for text in texts.values()]
    assert summary["tokens"] == sum(one["attention_mask"].sum().item() for one in features)


def test_texts_that_are_too_long_can_be_left_out(
    encoder: str, source: Path, texts: dict[int, str], tmp_path: Path
) -> None:
    summary = run(encoder, source, tmp_path / "a", too_long="skip")
    short = [number for number, text in texts.items() if len(text) < 500]
    assert gathered(tmp_path / "a")[0] == short
    assert (summary["truncated"], summary["rejected"]) == (0, ROWS - len(short))
    run(encoder, source, tmp_path / "b", max_chars=500)
    assert gathered(tmp_path / "b")[0] == short


def test_queries_prompts_and_names(encoder: str, source: Path, texts: dict[int, str], tmp_path: Path) -> None:
    stock, given = SentenceTransformer(encoder), list(texts.values())
    queries = stock.encode_query(given)
    run(encoder, source, tmp_path / "a", task="query")
    run(encoder, source, tmp_path / "b", prompt_name="query", id_column="name", file_format="safetensors")
    run(encoder, source, tmp_path / "c", prompt="")
    assert cosine_distance(gathered(tmp_path / "a")[1].numpy(), queries) < 1e-6
    ids, vectors = gathered(tmp_path / "b")
    assert ids == [f"row {number}" for number in texts]
    assert cosine_distance(vectors.numpy(), queries) < 1e-6
    assert cosine_distance(gathered(tmp_path / "c")[1].numpy(), stock.encode(given, prompt="")) < 1e-6


@pytest.mark.parametrize(
    ("precision", "file_format"),
    crossed(["int8", "binary", "uint8", "ubinary"], ["parquet", "safetensors"], ("parquet",)),
)
def test_quantisation_is_sentence_transformers_own(
    precision: str, file_format: str, encoder: str, source: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    run(encoder, source, tmp_path / "o", precision=precision, file_format=file_format, calibration_rows=40)
    stored = gathered(tmp_path / "o")[1].numpy()
    first = expected[:40]
    ranges = np.stack([first.min(axis=0), first.max(axis=0)])
    wanted = quantize_embeddings(expected, precision, ranges=ranges if "int8" in precision else None)
    assert stored.dtype == wanted.dtype and stored.shape == wanted.shape
    if "int8" in precision:
        assert np.abs(stored.astype(int) - wanted.astype(int)).max() <= 1
        assert np.allclose(JobFolder(tmp_path / "o", file_format).ranges(), ranges, atol=1e-5)
    else:
        bits = [np.unpackbits(one.astype(np.int16).astype(np.uint8), axis=1) for one in (stored, wanted)]
        assert (bits[0] == bits[1]).mean() > 0.999


@pytest.mark.parametrize(("precision", "file_format"), [("bfloat16", "safetensors"), ("float16", "parquet")])
def test_half_precision_and_matryoshka(
    precision: str, file_format: str, encoder: str, source: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    options = {"precision": precision, "file_format": file_format, "truncate_dim": 32, "normalize": True}
    run(encoder, source, tmp_path / "o", **options)
    vectors = gathered(tmp_path / "o")[1]
    assert vectors.dtype == getattr(torch, precision) and vectors.shape[1] == 32
    assert torch.allclose(vectors.float().norm(dim=1), torch.ones(len(vectors)), atol=1e-2)
    assert cosine_distance(vectors.float().numpy(), expected[:, :32]) < 1e-4


def test_custom_encoders(decoder: str, source: Path, texts: dict[int, str], tmp_path: Path) -> None:
    convert(decoder, "echo", max_length=64).save(str(tmp_path / "echo"))
    summary = run(str(tmp_path / "echo"), source, tmp_path / "o")
    vectors = load(tmp_path / "echo").encode_document(list(texts.values()))
    assert cosine_distance(gathered(tmp_path / "o")[1].numpy(), vectors) < 1e-6
    assert summary["truncated"] == sum(len(text) > 500 for text in texts.values())


def test_memory_holds_one_shard(encoder: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is never read further than the shard that is worked on."""
    opened = open_corpus([source])
    read = 0
    rows = opened.rows

    def counted(source: Corpus, start: int, stop: int) -> Any:
        nonlocal read
        for row in rows(start, stop):
            read += 1
            yield row

    monkeypatch.setattr(Corpus, "rows", counted)
    ahead: list[int] = []
    settings = EmbeddingSettings(encoder, shard_rows=32, batch_size=8)
    embed_corpus(opened, tmp_path / "o", settings, on_progress=lambda progress: ahead.append(read - progress.rows))
    assert max(ahead) <= 32


def test_progress_reaches_the_end(encoder: str, source: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    summary = run(encoder, source, tmp_path / "o", on_progress=seen.append)
    assert [one.rows for one in seen] == sorted(one.rows for one in seen)
    assert (seen[-1].rows, seen[-1].total, seen[-1].tokens) == (ROWS, ROWS, summary["tokens"])
    assert seen[-1].seconds_left == 0 and seen[-1].tokens_per_second > seen[-1].texts_per_second > 0


def test_an_encoder_that_reads_texts_twice(decoder: str, source: Path, tmp_path: Path) -> None:
    encoder = convert(decoder, "reverse-eol", max_length=64)
    encoder.save(str(tmp_path / "encoder"))
    run(str(tmp_path / "encoder"), source, tmp_path / "out", id_column="name")
    ids, vectors = gathered(tmp_path / "out")
    place = ids.index("row 3")
    assert cosine_distance(vectors[place][None], encoder.encode(["Ship 3 left the harbour at 3."])) < 1e-6
