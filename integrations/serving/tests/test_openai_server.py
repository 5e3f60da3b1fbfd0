"""A real server in a process of its own, asked by OpenAI's own client."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import httpx
import numpy as np
import openai
import pytest
from sentence_transformers import SentenceTransformer

from st_llm2vec import convert, decoder_path

TEXTS = ["The oak stood in the garden.", "a\nb", "A violin is carved from spruce and maple."]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    convert(decoder_path(), "llm2vec", prompts={"query": "Find:", "document": "Read:"}).save(str(folder))
    return str(folder)


@pytest.fixture(scope="module")
def client(encoder: str) -> Iterator[openai.OpenAI]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "st_llm2vec", "serve", encoder, "--port", str(port), "--accelerator", "cpu"]
    server = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.2)
    yield openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none", timeout=120, max_retries=2)
    os.killpg(server.pid, signal.SIGKILL)  # its workers too, which LitServe leaves behind
    server.wait(30)


@pytest.mark.parametrize("task", ["query", "document"])
def test_vectors_are_the_encoders(task: str, client: openai.OpenAI, encoder: str) -> None:
    answer = client.embeddings.create(model=task, input=TEXTS, encoding_format="float")
    expected = getattr(SentenceTransformer(encoder), f"encode_{task}")(TEXTS)
    assert np.allclose([one.embedding for one in answer.data], expected, atol=1e-6)
    assert answer.usage.prompt_tokens > len(TEXTS)


def test_models_that_can_be_named_are_listed(client: openai.OpenAI, encoder: str) -> None:
    names = [model.id for model in client.models.list()]
    assert names == ["query", "document", encoder]
    vectors = [client.embeddings.create(model=name, input=TEXTS[0]).data[0].embedding for name in names]
    assert vectors[1] == vectors[2] != vectors[0]


def test_dimensions_and_single_texts(client: openai.OpenAI, encoder: str) -> None:
    answer = client.embeddings.create(model="query", input=TEXTS[0], dimensions=16, encoding_format="float")
    expected = SentenceTransformer(encoder).encode_query(TEXTS[0], truncate_dim=16)
    found = np.asarray(answer.data[0].embedding)
    assert np.allclose(found, expected / np.linalg.norm(expected), atol=1e-6)
    assert abs(np.linalg.norm(found) - 1) < 1e-6


BODIES = {
    '{"model": "query", "input": []}': "at least 1",
    '{"model": "query", "input": NaN}': "input",
    '{"model": "query", "input": ["\\ud800"]}': "input",
    '{"model": "query", "input": "a", "dimensions": 0}': "dimensions",
    '{"model": "query", "input": "a", "dimensions": -5}': "dimensions",
    '{"model": "query", "input": "a", "dimensions": 10000}': "192",
    '{"model": "query", "input": "a", "input_type": "querry"}': "query",
    '{"model": "querry", "input": "a"}': "querry",
    '{"model": "query"}': "input",
}


@pytest.mark.parametrize("body", BODIES)
def test_what_cannot_be_encoded_is_refused_with_a_sentence(body: str, client: openai.OpenAI) -> None:
    address = f"{client.base_url}embeddings"
    answer = httpx.post(address, content=body, headers={"content-type": "application/json"}, timeout=60)
    assert answer.status_code == 400
    assert BODIES[body] in answer.text


def test_input_type_decides_before_the_models_name(client: openai.OpenAI, encoder: str) -> None:
    told = {"extra_body": {"input_type": "query"}, "encoding_format": "float"}
    answer = client.embeddings.create(model="document", input=TEXTS[0], **told)
    expected = SentenceTransformer(encoder).encode_query(TEXTS[0])
    assert np.allclose(answer.data[0].embedding, expected, atol=1e-6)


def test_usage_counts_what_is_read(client: openai.OpenAI, encoder: str) -> None:
    """The prompt is read too, and what is cut is not."""
    plain = SentenceTransformer(encoder)
    answer = client.embeddings.create(model="query", input=["a cat", "word " * 2000], encoding_format="float")
    assert answer.usage.prompt_tokens == len(plain.tokenizer("Find: a cat")["input_ids"]) + plain.max_seq_length


def test_token_ids_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="query", input=[1, 2], encoding_format="float")
