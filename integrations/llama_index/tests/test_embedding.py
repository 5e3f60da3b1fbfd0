from __future__ import annotations

import asyncio
import json
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TEXTS
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.callbacks import CallbackManager, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.storage.kvstore import SimpleKVStore
from llama_index.embeddings.st_llm2vec import STLLM2VecEmbedding
from pydantic import ValidationError

import st_llm2vec


def same(first: Any, second: Any) -> bool:
    return np.array_equal(np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64))


def close(first: Any, second: Any) -> bool:
    return np.allclose(np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64), atol=1e-6)


def test_it_is_an_embedding_in_a_namespace_package() -> None:
    import llama_index.embeddings

    assert issubclass(STLLM2VecEmbedding, BaseEmbedding)
    assert STLLM2VecEmbedding.class_name() == "STLLM2VecEmbedding"
    assert getattr(llama_index.embeddings, "__file__", None) is None


def test_queries_and_texts_are_exactly_the_encoders(folder: str) -> None:
    encoder = st_llm2vec.load(folder)
    embedding = STLLM2VecEmbedding(folder)
    texts = embedding.get_text_embedding_batch(TEXTS)
    query = embedding.get_query_embedding(TEXTS[0])
    assert same(texts, encoder.encode_document(TEXTS))
    assert same(query, encoder.encode_query([TEXTS[0]])[0])
    assert close([embedding.get_text_embedding(text) for text in TEXTS], texts)
    assert not close(query, texts[0])
    assert {type(value) for value in [*query, *texts[0]]} == {float}
    assert embedding.get_text_embedding_batch([]) == []


def test_batches_are_real_ones(portable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding = STLLM2VecEmbedding(portable, embed_batch_size=4)
    seen: list[int] = []
    encode = embedding.encoder.encode_document

    def counted(texts: list[str], **options: Any) -> Any:
        seen.append(len(texts))
        return encode(texts, **options)

    monkeypatch.setattr(embedding.encoder, "encode_document", counted)
    embedding.get_text_embedding_batch(TEXTS)
    asyncio.run(embedding.aget_text_embedding_batch(TEXTS))
    assert seen == [4, 2, 4, 2]


def test_async_is_as_sync_and_leaves_the_loop_free(folder: str) -> None:
    embedding = STLLM2VecEmbedding(folder, embed_batch_size=2)

    async def ask() -> tuple[list[Any], int]:
        ticks, done = 0, asyncio.Event()

        async def tick() -> None:
            nonlocal ticks
            while not done.is_set():
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        found = await asyncio.gather(
            embedding.aget_text_embedding_batch(TEXTS * 3), *[embedding.aget_query_embedding(text) for text in TEXTS]
        )
        done.set()
        await ticking
        return found, ticks

    started = time.perf_counter()
    (texts, *queries), ticks = asyncio.run(ask())
    assert ticks > (time.perf_counter() - started) * 5, "the loop stood still while texts were encoded"
    assert same(texts, embedding.get_text_embedding_batch(TEXTS * 3))
    assert all(same(one, embedding.get_query_embedding(text)) for one, text in zip(queries, TEXTS, strict=True))


def test_instructions_replace_the_saved_prompts_and_empty_ones_remove_them(folder: str) -> None:
    encoder = st_llm2vec.load(folder)
    own = STLLM2VecEmbedding(folder, query_instruction="Find:", text_instruction="Read:")
    none = STLLM2VecEmbedding(folder, query_instruction="", text_instruction="")
    assert same(own.get_query_embedding("a"), encoder.encode_query(["a"], prompt="Find:")[0])
    assert same(own.get_text_embedding("a"), encoder.encode_document(["a"], prompt="Read:")[0])
    assert same(none.get_query_embedding("a"), encoder.encode(["a"], prompt="")[0])
    assert same(none.get_text_embedding("a"), encoder.encode(["a"], prompt="")[0])


def test_the_librarys_own_arguments_of_loading_are_let_through(portable: str, tmp_path: Path) -> None:
    given = {
        "verify": True,
        "truncate_dim": 24,
        "processor_kwargs": {"padding_side": "right"},
        "config_kwargs": {"attention_dropout": 0.25},
    }
    made = STLLM2VecEmbedding(portable, model_kwargs=given)
    assert made.dimension == len(made.get_query_embedding("a")) == 24
    assert made.encoder.tokenizer.padding_side == "right"
    assert made.encoder[0].model.config.attention_dropout == 0.25
    damaged = shutil.copytree(portable, tmp_path / "damaged")
    weights = bytearray((damaged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match="is not the file that was saved"):
        STLLM2VecEmbedding(str(damaged), model_kwargs=given)


def test_an_instruction_that_the_encoder_refuses_shows_at_once(tmp_path: Path) -> None:
    st_llm2vec.convert(st_llm2vec.decoder_path(), "prompteol").save(str(tmp_path / "prompteol"))
    with pytest.raises(ValueError, match="takes no instruction"):
        STLLM2VecEmbedding(str(tmp_path / "prompteol"), query_instruction="Find:")


def test_a_dimension_is_never_more_than_there_is(portable: str) -> None:
    wide = STLLM2VecEmbedding(portable, truncate_dim=5000)
    assert wide.dimension == len(wide.get_query_embedding("a")) == 192
    assert STLLM2VecEmbedding(portable, truncate_dim=16).dimension == 16
    with pytest.raises(ValueError, match="gives vectors of 192 dimensions, and 5000 are expected"):
        STLLM2VecEmbedding(portable, truncate_dim=5000, expected_dimension=5000)


def test_round_trips(folder: str) -> None:
    embedding = STLLM2VecEmbedding(
        folder, query_instruction="Find:", truncate_dim=32, device="cpu", trust_remote_code=False, normalize=True,
        embed_batch_size=7, model_kwargs={"attn_implementation": "sdpa"},
    )  # fmt: skip
    expected = embedding.get_query_embedding("a")
    for again in (
        STLLM2VecEmbedding.from_dict(embedding.to_dict()),
        STLLM2VecEmbedding.from_json(embedding.to_json()),
        STLLM2VecEmbedding.from_dict(json.loads(json.dumps(embedding.to_dict()))),
        pickle.loads(pickle.dumps(embedding)),
    ):
        assert again.to_dict() == embedding.to_dict()
        assert (again.device, again.trust_remote_code, again.truncate_dim) == ("cpu", False, 32)
        assert same(again.get_query_embedding("a"), expected)
    assert len(pickle.dumps(embedding)) < 5_000


def test_a_copy_whose_model_is_gone_says_so(folder: str, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "gone")
    pickled = pickle.dumps(STLLM2VecEmbedding(str(tmp_path / "gone")))
    shutil.rmtree(tmp_path / "gone")
    with pytest.raises(ValueError, match="There is no folder"):
        pickle.loads(pickled)


def test_every_argument_is_a_field() -> None:
    fields = set(STLLM2VecEmbedding.model_fields)
    assert {"device", "trust_remote_code", "revision", "cache_folder", "query_instruction", "text_instruction"} < fields


def test_no_secret_reaches_payloads_or_dictionaries(portable: str) -> None:
    with pytest.raises(ValueError, match="HF_TOKEN"):
        STLLM2VecEmbedding(portable, model_kwargs={"token": "hf_secret"})

    seen: list[str] = []

    class Listener(BaseEventHandler):
        def handle(self, event: Any, **_: Any) -> None:
            seen.append(str(event))

    debug = LlamaDebugHandler(print_trace_on_end=False)
    embedding = STLLM2VecEmbedding(
        portable, callback_manager=CallbackManager([debug]), model_kwargs={"prompts": {"query": "hush"}}
    )
    dispatcher = get_dispatcher()
    listener = Listener()
    dispatcher.add_event_handler(listener)
    try:
        embedding.get_query_embedding("a")
    finally:
        dispatcher.event_handlers.remove(listener)
    payloads = [str(pair) for pair in debug.get_event_pairs()]
    assert seen and payloads
    assert not [text for text in seen + payloads if "hush" in text]
    assert set(embedding.to_payload()) == {"class_name", "model_name", "embed_batch_size"}


def test_a_cache_of_embeddings_never_answers_a_query_with_a_text(portable: str) -> None:
    encoder = st_llm2vec.load(portable)
    embedding = STLLM2VecEmbedding(portable, embeddings_cache=SimpleKVStore())
    texts = embedding.get_text_embedding_batch(["a", "b"])
    assert same(embedding.get_text_embedding_batch(["b", "a"]), texts[::-1])
    expected = encoder.encode_query(["a"])[0]
    assert same(embedding.get_query_embedding("a"), expected)
    assert same(asyncio.run(embedding.aget_query_embedding("a")), expected)
    assert same(embedding.get_text_embedding("a"), texts[0])


def test_an_unknown_model_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ValueError, match="no/such/place"):
        STLLM2VecEmbedding("no/such/place")
    with pytest.raises(ValueError, match=r"st_llm2vec\.convert"):
        STLLM2VecEmbedding(st_llm2vec.decoder_path())


@pytest.mark.parametrize("text", [5, None, b"a"])
def test_what_is_no_text_is_a_sentence(portable: str, text: Any) -> None:
    embedding = STLLM2VecEmbedding(portable)
    for ask in (embedding.get_query_embedding, embedding.get_text_embedding):
        with pytest.raises(TypeError, match="a string is expected"):
            ask(text)
    with pytest.raises(TypeError, match="Text 1 is"):
        embedding.get_text_embedding_batch(["a", text])


@pytest.mark.parametrize("fields", [{"embed_batch_size": 0}, {"truncate_dim": 0}, {"normalize": "perhaps"}])
def test_fields_that_cannot_be(portable: str, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        STLLM2VecEmbedding(portable, **fields)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("document_instruction", "text_instruction"),
        ("batch_size", "embed_batch_size"),
        ("prompts", "model_kwargs"),
        ("truncate_dims", "truncate_dim"),
        ("colour", "There are"),
    ],
)
def test_an_unknown_argument_is_not_dropped(portable: str, name: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"no argument {name!r}.*{told}"):
        STLLM2VecEmbedding(portable, **{name: "Represent the passage:"})


def test_both_adapters_load_in_the_same_way() -> None:
    here = Path(__file__).parents[1] / "llama_index" / "embeddings" / "st_llm2vec" / "_loading.py"
    there = Path(__file__).parents[2] / "langchain" / "src" / "langchain_st_llm2vec" / "_loading.py"
    if not there.is_file():
        pytest.skip("the other adapter is not here")
    assert here.read_text(encoding="utf-8") == there.read_text(encoding="utf-8")
