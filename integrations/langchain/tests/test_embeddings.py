from __future__ import annotations

import asyncio
import json
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TEXTS
from langchain_huggingface import HuggingFaceEmbeddings
from pydantic import ValidationError
from sentence_transformers import SentenceTransformer

import st_llm2vec
from langchain_st_llm2vec import STLLM2VecEmbeddings


def same(first: Any, second: Any) -> bool:
    return np.array_equal(np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64))


def close(first: Any, second: Any) -> bool:
    return np.allclose(np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64), atol=1e-6)


def test_queries_and_documents_are_exactly_the_encoders(folder: str) -> None:
    encoder = st_llm2vec.load(folder)
    embeddings = STLLM2VecEmbeddings(model=folder)
    documents, query = embeddings.embed_documents(TEXTS), embeddings.embed_query(TEXTS[0])
    assert same(documents, encoder.encode_document(TEXTS))
    assert same(query, encoder.encode_query([TEXTS[0]])[0])
    assert not close(query, documents[0])
    assert {type(value) for value in [*query, *documents[0]]} == {float}


def test_one_by_one_is_as_in_a_batch(folder: str) -> None:
    embeddings = STLLM2VecEmbeddings(model=folder, batch_size=2)
    alone = [embeddings.embed_documents([text])[0] for text in TEXTS]
    assert close(alone, embeddings.embed_documents(TEXTS))


def test_async_is_as_sync_while_many_ask_at_once(folder: str) -> None:
    embeddings = STLLM2VecEmbeddings(model=folder)

    async def ask() -> list[Any]:
        queries = [embeddings.aembed_query(text) for text in TEXTS]
        return await asyncio.gather(embeddings.aembed_documents(TEXTS), *queries)

    documents, *queries = asyncio.run(ask())
    assert same(documents, embeddings.embed_documents(TEXTS))
    assert all(same(query, embeddings.embed_query(text)) for query, text in zip(queries, TEXTS, strict=True))
    with ThreadPoolExecutor(4) as threads:
        assert all(same(one, two) for one, two in zip(threads.map(embeddings.embed_query, TEXTS), queries, strict=True))


def test_the_stock_class_loses_the_query_prompt_and_the_line_breaks(portable: str) -> None:
    """Why this class exists; a change upstream shows here."""
    stock, ours = HuggingFaceEmbeddings(model=portable), STLLM2VecEmbeddings(model=portable)
    encoder = SentenceTransformer(portable)
    assert close(ours.embed_query("a"), encoder.encode_query(["a"])[0])
    assert not close(stock.embed_query("a"), encoder.encode_query(["a"])[0])
    assert not close(stock.embed_documents(["a\nb"]), ours.embed_documents(["a\nb"]))


@pytest.mark.parametrize("recipe", ["portable", "custom"])
def test_an_instruction_replaces_the_saved_prompt_and_an_empty_one_removes_it(
    recipe: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(recipe)
    encoder = st_llm2vec.load(folder)
    own = STLLM2VecEmbeddings(model=folder, query_instruction="Find:", document_instruction="Read:")
    none = STLLM2VecEmbeddings(model=folder, query_instruction="", document_instruction="")
    assert same(own.embed_query("a"), encoder.encode_query(["a"], prompt="Find:")[0])
    assert same(own.embed_documents(["a"]), encoder.encode_document(["a"], prompt="Read:"))
    assert same(none.embed_query("a"), encoder.encode(["a"], prompt="")[0])
    assert same(none.embed_documents(["a"]), encoder.encode(["a"], prompt=""))


def test_truncation_comes_before_normalising(portable: str) -> None:
    embeddings = STLLM2VecEmbeddings(model=portable, truncate_dim=16, normalize=True)
    vector = np.asarray(embeddings.embed_query("a"))
    full = SentenceTransformer(portable).encode_query(["a"])[0][:16]
    assert close(vector, full / np.linalg.norm(full))


def test_a_dimension_is_never_more_than_there_is(portable: str) -> None:
    wide = STLLM2VecEmbeddings(model=portable, truncate_dim=5000)
    assert wide.dimension == len(wide.embed_query("a")) == 192
    with pytest.raises(ValueError, match="gives vectors of 192 dimensions, and 5000 are expected"):
        STLLM2VecEmbeddings(model=portable, truncate_dim=5000, expected_dimension=5000)
    encoder = st_llm2vec.load(portable)
    encoder.truncate_dim = 32
    for asked, given in ((None, 32), (64, 64), (5000, 192)):
        embeddings = STLLM2VecEmbeddings.from_model(encoder, truncate_dim=asked)
        assert embeddings.dimension == len(embeddings.embed_query("a")) == given
        assert encoder.truncate_dim == 32


def test_an_instruction_that_the_encoder_refuses_shows_at_once(tmp_path: Path) -> None:
    encoder = st_llm2vec.convert(st_llm2vec.decoder_path(), "prompteol")
    with pytest.raises(ValueError, match="takes no instruction"):
        STLLM2VecEmbeddings.from_model(encoder, query_instruction="Find:")
    encoder.save(str(tmp_path / "prompteol"))
    with pytest.raises(ValueError, match="takes no instruction"):
        STLLM2VecEmbeddings(model=str(tmp_path / "prompteol"), document_instruction="Read:")


def test_an_instruction_for_each_document(folder: str) -> None:
    instructions = ["Read:", "", "Read:", "A title:", "", "Read:"]
    embeddings = STLLM2VecEmbeddings(model=folder, encode_kwargs={"prompt": instructions})
    alone = [
        STLLM2VecEmbeddings(model=folder, document_instruction=one).embed_documents([text])[0]
        for text, one in zip(TEXTS, instructions, strict=True)
    ]
    assert close(embeddings.embed_documents(TEXTS), alone)
    with pytest.raises(ValueError, match="6 instructions for 2 texts"):
        embeddings.embed_documents(TEXTS[:2])


def test_names_of_the_stock_class_work(portable: str, tmp_path: Any) -> None:
    embeddings = STLLM2VecEmbeddings(
        model_name=portable,
        cache_folder=str(tmp_path),
        model_kwargs={"device": "cpu", "dtype": "float32", "prompts": {"query": "Another:"}},
        encode_kwargs={"normalize_embeddings": True, "batch_size": 4},
        query_encode_kwargs={"normalize_embeddings": True},
        multi_process=False,
        show_progress=False,
    )
    assert np.isclose(np.linalg.norm(embeddings.embed_query("a")), 1)
    assert close(
        embeddings.embed_query("a"),
        STLLM2VecEmbeddings(model=portable, query_instruction="Another:", normalize=True).embed_query("a"),
    )


def test_the_librarys_own_arguments_of_loading_are_let_through(portable: str, tmp_path: Any) -> None:
    given = {
        "verify": True,
        "truncate_dim": 24,
        "processor_kwargs": {"padding_side": "right"},
        "config_kwargs": {"attention_dropout": 0.25},
    }
    made = STLLM2VecEmbeddings(model=portable, model_kwargs=given)
    assert made.dimension == len(made.embed_query("a")) == 24
    assert made.encoder.tokenizer.padding_side == "right"
    assert made.encoder[0].model.config.attention_dropout == 0.25
    damaged = shutil.copytree(portable, tmp_path / "damaged")
    weights = bytearray((damaged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="is not the file that was saved"):
        STLLM2VecEmbeddings(model=str(damaged), model_kwargs=given)


def test_several_processes_give_the_same(portable: str) -> None:
    embeddings = STLLM2VecEmbeddings(model=portable, multi_process=True)
    assert close(embeddings.embed_documents(TEXTS * 2), st_llm2vec.load(portable).encode_document(TEXTS * 2))


def test_nothing_gives_nothing(portable: str) -> None:
    assert STLLM2VecEmbeddings(model=portable).embed_documents([]) == []


def test_round_trips(folder: str) -> None:
    embeddings = STLLM2VecEmbeddings(model=folder, query_instruction="Find:", truncate_dim=32, batch_size=3)
    expected = embeddings.embed_query("a")
    for again in (
        STLLM2VecEmbeddings(**embeddings.model_dump()),
        STLLM2VecEmbeddings.model_validate_json(embeddings.model_dump_json()),
        STLLM2VecEmbeddings(**json.loads(json.dumps(embeddings.model_dump(by_alias=True)))),
        pickle.loads(pickle.dumps(embeddings)),
        embeddings.model_copy(deep=True),
    ):
        assert again.model_dump() == embeddings.model_dump()
        assert same(again.embed_query("a"), expected)
    assert len(pickle.dumps(embeddings)) < 5_000


def test_a_model_in_memory(portable: str) -> None:
    encoder = st_llm2vec.load(portable)
    embeddings = STLLM2VecEmbeddings.from_model(encoder, query_instruction="Find:", truncate_dim=8)
    expected = encoder.encode_query(["a"], prompt="Find:", truncate_dim=8)[0]
    assert same(embeddings.embed_query("a"), expected)
    assert same(pickle.loads(pickle.dumps(embeddings)).embed_query("a"), expected)
    with pytest.raises(ValueError, match="Save the model, and give its folder"):
        STLLM2VecEmbeddings(**embeddings.model_dump()).embed_query("a")
    with pytest.raises(TypeError, match="takes a SentenceTransformer; str was given"):
        STLLM2VecEmbeddings.from_model(portable)


@pytest.mark.parametrize("trust", [False, True])
def test_an_unknown_model_is_a_sentence(trust: bool, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="no/such/place"):
        STLLM2VecEmbeddings(model="no/such/place", trust_remote_code=trust)
    with pytest.raises(ValueError, match=r"st_llm2vec\.convert"):
        STLLM2VecEmbeddings(model=st_llm2vec.decoder_path(), trust_remote_code=trust)


@pytest.mark.parametrize("texts", [["a", 5], ["a", None], [b"a"]])
def test_what_is_no_text_is_a_sentence(portable: str, texts: list[Any]) -> None:
    embeddings = STLLM2VecEmbeddings(model=portable)
    with pytest.raises(TypeError, match=r"Text \d is (int|NoneType|bytes) .* a string is expected"):
        embeddings.embed_documents(texts)
    with pytest.raises(TypeError, match="a string is expected"):
        embeddings.embed_query(texts[-1])
    with pytest.raises(TypeError, match="takes a list"):
        embeddings.embed_documents("a text")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"colour": "red"}, "colour"),
        ({"batch_size": 0}, "greater than 0"),
        ({"model_kwargs": {"colour": "red"}}, "which st_llm2vec.load does not take"),
        ({"model_kwargs": {"device": "cpu"}, "device": "cpu"}, "given twice"),
        ({"encode_kwargs": {"precision": "int8"}}, "ranges would differ"),
        ({"query_encode_kwargs": {"truncate_dim": 16}}, "a field of its own: truncate_dim=16"),
        ({"encode_kwargs": {"prompt": "a"}, "query_instruction": "b"}, "Give one of them"),
    ],
)
def test_arguments_that_cannot_be(portable: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        STLLM2VecEmbeddings(model=portable, **fields)


@pytest.mark.parametrize(
    ("name", "told"),
    [("text_instruction", "document_instruction"), ("instruction", "query_instruction"), ("prompts", "model_kwargs")],
)
def test_an_unknown_argument_is_told_what_it_is_here(portable: str, name: str, told: str) -> None:
    with pytest.raises(ValidationError, match=f"no argument {name!r}; here it is {told}"):
        STLLM2VecEmbeddings(model=portable, **{name: "Find:"})


def test_without_st_llm2vec(portable: str, custom: str) -> None:
    """Portable encoders, instructions of one's own included, need nothing but Sentence Transformers."""
    script = """
import importlib.abc, json, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        return None
sys.path = [p for p in sys.path]
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "st_llm2vec" else real(name, *rest)
from langchain_st_llm2vec import STLLM2VecEmbeddings
portable, custom = sys.argv[1:]
plain = STLLM2VecEmbeddings(model=portable, query_instruction="Find:")
print(json.dumps(plain.embed_query("a")), json.dumps(plain.embed_documents(["a"])), sep="\\n")
for model in (custom, "no/such/place"):
    try:
        STLLM2VecEmbeddings(model=model)
    except ValueError as error:
        print(str(error).replace("\\n", " "))
assert "st_llm2vec" not in sys.modules
trusted = STLLM2VecEmbeddings(model=custom, trust_remote_code=True)
print(json.dumps(trusted.embed_query("a")))
assert "st_llm2vec" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script, portable, custom], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    query, documents, no_trust, unknown, trusted = done.stdout.strip().splitlines()
    ours = STLLM2VecEmbeddings(model=portable, query_instruction="Find:")
    assert close(json.loads(query), ours.embed_query("a"))
    assert close(json.loads(documents), ours.embed_documents(["a"]))
    assert "install st-llm2vec" in no_trust and "There is no encoder no/such/place" in unknown
    assert close(json.loads(trusted), STLLM2VecEmbeddings(model=custom).embed_query("a"))
