"""Whatever is given to encode: a finite vector in its place, that of the text alone, or a sentence that names the row."""

from __future__ import annotations

import io
import json
import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from st_llm2vec import RECIPES, TextEncoder, convert
from st_llm2vec.cli import app
from st_llm2vec.corpus import EmbeddingSettings, embed_corpus, open_corpus, read_embeddings

from .conftest import INSTRUCTION, but_first
from .odd_inputs import ODD_TEXTS, batches, containers, no_texts, texts
from .promises import Promise

TASKS = ("encode", "encode_query", "encode_document")
SMALL = {"latent_attention": {"num_latents": 4, "num_heads": 2}}
FAST = ["llm2vec", "e5-mistral", "echo"]  # one of each layout: text, message, custom
Encoders = Callable[[str], TextEncoder]
LINES = st.one_of(
    st.binary(max_size=20),
    texts.map(lambda text: json.dumps({"text": text}).encode()),
    no_texts.map(lambda one: json.dumps({"text": one}, default=str).encode()),
)


@pytest.fixture(scope="module")
def encoders(decoder: str) -> Encoders:
    """Encoders that read 64 tokens beside their template; tests leave them as they are."""

    @cache
    def make(recipe: str) -> TextEncoder:
        prompts = {"query": INSTRUCTION} if RECIPES[recipe].instruction_template is not None else {}
        length = 64 if not recipe.startswith(("prompteol", "bge")) else 512
        return convert(decoder, recipe, max_length=length, prompts=prompts, **(SMALL if recipe == "nv-embed" else {}))

    return make


@pytest.fixture(scope="module")
def alone(encoders: Encoders) -> Callable[[str, str, str], np.ndarray]:
    """The vector of a text that is encoded by itself."""
    return cache(lambda recipe, task, text: getattr(encoders(recipe), task)(text))


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The largest cosine distance between rows; the vectors of empty texts may be zero, and then both are."""
    first, second = (np.asarray(one, dtype=np.float64) for one in (first, second))
    assert first.shape == second.shape and np.isfinite(first).all() and np.isfinite(second).all()
    norms = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    assert ((norms[0] == 0) == (norms[1] == 0)).all()
    return float(
        (1 - (first * second).sum(axis=1) / np.where(norms[0] == 0, 1, norms[0] * norms[1]))[norms[0] > 0].max(
            initial=0
        )
    )


def all_but_first(recipes: list[str]) -> list[Any]:
    rest = [name for name in RECIPES if name not in recipes]
    return [
        *((name, "few") for name in recipes),
        *(pytest.param(name, "many", marks=pytest.mark.slow) for name in [*recipes, *rest]),
    ]


@pytest.mark.promise(Promise.ANY_INPUT)
@pytest.mark.promise(Promise.ONE_VECTOR)
@pytest.mark.parametrize(("recipe", "profile"), all_but_first(FAST))
def test_any_batch_is_finite_in_order_and_as_alone(
    encoders: Encoders, alone: Any, recipe: str, profile: str, record_property: Any
) -> None:
    tried, worst = 0, 0.0

    @settings(settings.get_profile(profile))
    @given(batches, st.sampled_from(TASKS), containers)
    def holds(batch: list[str], task: str, container: Callable[[list[str]], Any]) -> None:
        nonlocal tried, worst
        found = getattr(encoders(recipe), task)(container(batch))
        tried += len(batch)
        apart = distance(found, np.stack([alone(recipe, task, text) for text in batch]))
        assert apart < 1e-6
        worst = max(worst, apart)

    holds()
    record_property("cases", tried)
    record_property("figure", f"largest cosine distance {worst:.0e}")


@pytest.mark.promise(Promise.ANY_INPUT)
@pytest.mark.parametrize(("recipe", "profile"), all_but_first(FAST))
def test_what_is_no_text_is_refused_by_its_row(
    encoders: Encoders, recipe: str, profile: str, record_property: Any
) -> None:
    tried = 0

    @settings(settings.get_profile(profile))
    @given(batches, no_texts, st.data())
    def holds(batch: list[str], wrong: Any, data: st.DataObject) -> None:
        nonlocal tried
        tried += 1
        row = data.draw(st.integers(1, len(batch)))  # a list of numbers that comes first is a block of tokens
        rows = [*batch[:row], wrong, *batch[row:]]
        with pytest.raises(ValueError, match=f"^Row {row} (is|holds) "):
            encoders(recipe).encode(rows)
        with pytest.raises(ValueError, match=f"^Row {row} of the batch (is|holds) "):
            encoders(recipe).preprocess(rows)

    holds()
    record_property("cases", tried)


@pytest.mark.promise(Promise.ANY_INPUT)
@pytest.mark.parametrize("profile", but_first(["few", "many"]))
def test_any_file_is_encoded_or_refused_by_its_row(
    encoders: Encoders, alone: Any, profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    monkeypatch.setattr("st_llm2vec.folder.load.load", lambda *arguments, **options: encoders("llm2vec"))
    monkeypatch.setattr("st_llm2vec.cli.encode.quiet", lambda: None)
    tried, (source, target) = 0, (tmp_path / "texts.jsonl", tmp_path / "vectors.npy")

    @settings(settings.get_profile(profile))
    @given(st.lists(LINES, max_size=6))
    def holds(lines: list[bytes]) -> None:
        nonlocal tried
        tried += 1
        source.write_bytes(b"\n".join(lines))
        target.unlink(missing_ok=True)
        done = CliRunner().invoke(app, ["encode", "encoder", "--input", str(source), "--output", str(target)])
        if done.exit_code == 0:
            rows = [json.loads(line)["text"] for line in source.read_bytes().split(b"\n") if line.strip()]
            assert distance(np.load(target), np.stack([alone("llm2vec", "encode", row) for row in rows])) < 1e-6
        else:
            assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
            assert re.search(r"Row \d+ of .* cannot be encoded|holds no rows|has no column", done.stderr), done.stderr
            assert not target.exists()

    holds()
    record_property("cases", tried)


@pytest.mark.promise(Promise.ANY_INPUT)
@pytest.mark.parametrize("profile", but_first(["few", "many"]))
def test_standard_input_is_encoded_or_refused_by_its_line(
    encoders: Encoders, alone: Any, profile: str, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    monkeypatch.setattr("st_llm2vec.folder.load.load", lambda *arguments, **options: encoders("llm2vec"))
    monkeypatch.setattr("st_llm2vec.cli.encode.quiet", lambda: None)
    tried = 0

    @settings(settings.get_profile(profile))
    @given(st.one_of(st.binary(max_size=40), batches.map(lambda batch: "\n".join(batch).encode())))
    def holds(given: bytes) -> None:
        nonlocal tried
        tried += 1
        done = CliRunner().invoke(app, ["encode", "encoder", "--input", "-", "--json"], input=given)
        if done.exit_code == 0:
            rows = [line.decode().rstrip("\r\n") for line in io.BytesIO(given)]
            found = np.array(json.loads(done.stdout)["vectors"])
            assert distance(found, np.stack([alone("llm2vec", "encode", row) for row in rows])) < 1e-6
        else:
            assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.exception
            assert re.search(r"Line \d+ of standard input is not UTF-8 text|holds no rows", done.stderr), done.stderr

    holds()
    record_property("cases", tried)


@pytest.mark.promise(Promise.ANY_INPUT)
@pytest.mark.parametrize("profile", but_first(["few", "many"]))
def test_any_corpus_is_embedded_but_for_the_rows_that_are_recorded(
    encoders: Encoders, alone: Any, profile: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Any
) -> None:
    monkeypatch.setattr("st_llm2vec.corpus.shard_encoder.load", lambda *arguments, **options: encoders("llm2vec"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    tried, source = 0, tmp_path / "corpus.jsonl"
    embedding = EmbeddingSettings("encoder", shard_rows=3, batch_size=2)

    @settings(settings.get_profile(profile))
    @given(st.lists(LINES, max_size=7))
    def holds(lines: list[bytes]) -> None:
        nonlocal tried
        tried += 1
        source.write_bytes(b"\n".join([b'{"text": "the first"}', *lines]))
        output = tmp_path / f"{tried}"
        summary = embed_corpus(open_corpus([source]), output, embedding, devices=["cpu"])
        rows = [line for line in source.read_bytes().split(b"\n") if line.strip()]
        records = [json.loads(line) for file in output.glob("rejected/*") for line in file.read_text().splitlines()]
        rejected = [record["row"] for record in records if not record["embedded"]]
        shards = list(read_embeddings(output))
        ids = [one for numbers, _ in shards for one in numbers]
        assert sorted([*ids, *rejected]) == list(range(len(rows))) == list(range(summary["rows"]))
        assert ids == sorted(ids) and all(record["problem"] for record in records)
        expected = [alone("llm2vec", "encode_document", json.loads(rows[number])["text"]) for number in ids]
        assert distance(np.concatenate([vectors for _, vectors in shards]), np.stack(expected)) < 1e-6

    holds()
    record_property("cases", tried)


@pytest.mark.promise(Promise.ANY_INPUT)
@pytest.mark.parametrize("count", but_first([2_000, 20_000, 100_000]))
def test_many_tiny_texts(tiny: Callable[..., str], count: int, record_property: Any) -> None:
    """Most of them are there many times over, and those of one kind are of one vector, wherever they stand."""
    encoder = convert(tiny("llama"), "llm2vec")
    drawn = np.random.default_rng(5).integers(0, 32, count)
    vectors = encoder.encode([f"{number:b}" for number in drawn])
    alone = np.stack([encoder.encode(f"{number:b}") for number in range(32)])
    worst = distance(vectors, alone[drawn])
    assert worst < 1e-6
    record_property("cases", count)
    record_property("figure", f"largest cosine distance {worst:.0e}")


@pytest.mark.slow
@pytest.mark.promise(Promise.ANY_INPUT)
@pytest.mark.parametrize("recipe", FAST)
@pytest.mark.parametrize("kind", [0, 3, 7, 9, 10, 12, 20, 24])
def test_ten_megabytes_are_read_like_their_beginning(
    encoders: Encoders, recipe: str, kind: int, record_property: Any
) -> None:
    word = ODD_TEXTS[kind] or "the cat sat on the mat "
    text = word * (10_000_000 // len(word.encode()))
    start = time.monotonic()
    found = encoders(recipe).encode(["a neighbour", text])
    seconds = time.monotonic() - start
    expected = encoders(recipe).encode(["a neighbour", text[:20_000]])
    assert distance(found, expected) < 1e-6 and seconds < 600
    record_property("figure", f"longest time, in seconds, {seconds:.0f}")
