"""Real retrieval on disk: three vector stores, the same nDCG@10 as the library's own search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import shared_cranfield
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.stores import InMemoryByteStore
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_st_llm2vec import STLLM2VecEmbeddings
from st_llm2vec import convert, decoder_path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "examples")]
import cranfield_search as example  # noqa: E402
from cranfield import Collection, ndcg_at_10, own_search, read_cranfield  # noqa: E402


@pytest.fixture(scope="module")
def collection() -> Collection:
    return read_cranfield(shared_cranfield())


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> STLLM2VecEmbeddings:
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    prompts = {"query": "Find abstracts that answer the question:"}
    convert(decoder_path(), "llm2vec", prompts=prompts, max_length=128).save(str(folder))
    return STLLM2VecEmbeddings(model=str(folder), normalize=True)


@pytest.fixture(scope="module")
def cached(embeddings: STLLM2VecEmbeddings) -> CacheBackedEmbeddings:
    """LangChain's cache, so that the documents are encoded once for all stores."""
    return CacheBackedEmbeddings.from_bytes_store(
        embeddings, InMemoryByteStore(), namespace="cranfield", key_encoder="sha256"
    )


@pytest.fixture(scope="module")
def best(embeddings: STLLM2VecEmbeddings, collection: Collection) -> dict[str, list[str]]:
    return own_search(embeddings.encoder, collection)


@pytest.mark.parametrize("store", example.STORES)
def test_a_store_on_disk_finds_what_the_librarys_own_search_finds(
    store: str,
    collection: Collection,
    cached: CacheBackedEmbeddings,
    embeddings: STLLM2VecEmbeddings,
    best: dict[str, list[str]],
    tmp_path: Path,
) -> None:
    index = example.open_index(store, tmp_path / "index", cached, embeddings.dimension)
    example.add(index, collection)
    example.close_index(index, tmp_path / "index")
    del index
    opened = example.open_index(store, tmp_path / "index", embeddings, embeddings.dimension)
    found = example.search(opened, collection)
    example.close_index(opened, tmp_path / "index")
    expected, reached = ndcg_at_10(best, collection.relevant), ndcg_at_10(found, collection.relevant)
    same = np.mean([list(found[query]) == best[query] for query in best])
    assert reached == pytest.approx(expected, abs=1e-4)
    assert same > 0.98


@pytest.mark.parametrize("store", example.STORES)
def test_vectors_of_another_dimension_are_refused_and_change_nothing(
    store: str, embeddings: STLLM2VecEmbeddings, tmp_path: Path
) -> None:
    texts = ["a wing", "a shock wave", "a boundary layer"]
    index = example.open_index(store, tmp_path / "index", embeddings, embeddings.dimension)
    index.add_texts(texts, metadatas=[{"name": text} for text in texts])
    before = [one.page_content for one in index.similarity_search("a wing", k=4)]
    example.close_index(index, tmp_path / "index")
    with pytest.raises(ValueError, match="gives vectors of 32 dimensions, and 192 are expected"):
        STLLM2VecEmbeddings(model=embeddings.model_name, truncate_dim=32, expected_dimension=embeddings.dimension)
    narrow = STLLM2VecEmbeddings(model=embeddings.model_name, truncate_dim=32)
    with pytest.raises(Exception):  # noqa: B017  # each store has an error of its own
        example.open_index(store, tmp_path / "index", narrow, narrow.dimension).add_texts(["a fourth"])
    again = example.open_index(store, tmp_path / "index", embeddings, embeddings.dimension)
    assert [one.page_content for one in again.similarity_search("a wing", k=4)] == before
    example.close_index(again, tmp_path / "index")


def test_the_cache_keeps_documents_and_not_queries(embeddings: STLLM2VecEmbeddings) -> None:
    cached = CacheBackedEmbeddings.from_bytes_store(
        embeddings, InMemoryByteStore(), namespace="n", key_encoder="sha256"
    )
    first = cached.embed_documents(["a", "b"])
    assert np.allclose(cached.embed_documents(["b", "a"]), first[::-1])
    assert np.allclose(first, embeddings.embed_documents(["a", "b"]))
    assert np.allclose(cached.embed_query("a"), embeddings.embed_query("a"))
    assert not np.allclose(cached.embed_query("a"), first[0])


async def test_a_store_in_memory_and_a_chain(embeddings: STLLM2VecEmbeddings) -> None:
    texts = ["The compass needle points to the north.", "A violin is carved from spruce and maple.", "Bees make honey."]
    store = InMemoryVectorStore(embeddings)
    await store.aadd_documents([Document(text) for text in texts])
    retriever = store.as_retriever(search_kwargs={"k": 1})
    best = int(np.argmax(np.asarray(embeddings.embed_documents(texts)) @ np.asarray(embeddings.embed_query(texts[1]))))
    seen: list[Any] = []

    def watched(prompt: Any) -> Any:
        seen.append(prompt.to_string())
        return prompt

    chain = (
        {"context": retriever | (lambda found: found[0].page_content), "question": RunnablePassthrough()}
        | ChatPromptTemplate.from_template("{context}\n\n{question}")
        | watched
        | FakeListChatModel(responses=["Of spruce and maple."])
        | StrOutputParser()
    )
    assert chain.invoke(texts[1]) == await chain.ainvoke(texts[1]) == "Of spruce and maple."
    assert seen[0] == seen[1] and texts[best] in seen[0]
