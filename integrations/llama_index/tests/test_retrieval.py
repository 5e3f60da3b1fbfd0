"""Real retrieval on disk: four vector stores, the same nDCG@10 as the library's own search."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import shared_cranfield
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.ingestion import IngestionCache, IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import Document, TextNode
from llama_index.embeddings.st_llm2vec import STLLM2VecEmbedding

from st_llm2vec import convert, decoder_path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1] / "examples")]
import cranfield_search as example  # noqa: E402
from cranfield import Collection, ndcg_at_10, own_search, read_cranfield  # noqa: E402

TEXTS = ["The compass needle points to the north.", "A violin is carved from spruce and maple.", "Bees make honey."]


@pytest.fixture(scope="module")
def collection() -> Collection:
    return read_cranfield(shared_cranfield())


@pytest.fixture(scope="module")
def embedding(tmp_path_factory: pytest.TempPathFactory) -> STLLM2VecEmbedding:
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    prompts = {"query": "Find abstracts that answer the question:"}
    convert(decoder_path(), "llm2vec", prompts=prompts, max_length=128).save(str(folder))
    return STLLM2VecEmbedding(str(folder), normalize=True)


@pytest.fixture(scope="module")
def embedded(embedding: STLLM2VecEmbedding, collection: Collection) -> list[TextNode]:
    """The documents with their vectors, so that they are encoded once for all stores."""
    return list(embedding(example.nodes(collection)))


@pytest.fixture(scope="module")
def best(embedding: STLLM2VecEmbedding, collection: Collection) -> dict[str, list[str]]:
    return own_search(embedding.encoder, collection)


@pytest.mark.parametrize("store", example.STORES)
def test_a_store_on_disk_finds_what_the_librarys_own_search_finds(
    store: str,
    collection: Collection,
    embedding: STLLM2VecEmbedding,
    embedded: list[TextNode],
    best: dict[str, list[str]],
    tmp_path: Path,
) -> None:
    example.build(store, tmp_path / "index", embedding, embedding.dimension, embedded)
    index = example.reopen(store, tmp_path / "index", embedding, embedding.dimension)
    found = example.search(index, collection)
    example.close(index)
    expected, reached = ndcg_at_10(best, collection.relevant), ndcg_at_10(found, collection.relevant)
    same = np.mean([list(found[query]) == best[query] for query in best])
    assert reached == pytest.approx(expected, abs=1e-4)
    assert same > 0.98


@pytest.mark.parametrize("store", example.STORES)
def test_vectors_of_another_dimension_are_refused_and_change_nothing(
    store: str, embedding: STLLM2VecEmbedding, tmp_path: Path
) -> None:
    documents = example.nodes(Collection(dict(zip("abc", TEXTS, strict=True)), {}, {}))
    example.build(store, tmp_path / "index", embedding, embedding.dimension, documents)
    with pytest.raises(ValueError, match="gives vectors of 32 dimensions, and 192 are expected"):
        STLLM2VecEmbedding(embedding.model_name, truncate_dim=32, expected_dimension=embedding.dimension)
    narrow = example.reopen(store, tmp_path / "index", STLLM2VecEmbedding(embedding.model_name, truncate_dim=32), 32)
    with pytest.raises(Exception):  # noqa: B017  # each store has an error of its own
        narrow.insert_nodes(example.nodes(Collection({"d": "a fourth"}, {}, {})))
    example.close(narrow)
    again = example.reopen(store, tmp_path / "index", embedding, embedding.dimension)
    found = again.as_retriever(similarity_top_k=4).retrieve(TEXTS[1])
    assert sorted(one.node.metadata["name"] for one in found) == ["a", "b", "c"]
    example.close(again)


def test_a_pipeline_takes_what_it_has_seen_from_its_cache(embedding: STLLM2VecEmbedding, tmp_path: Path) -> None:
    def pipeline(model: STLLM2VecEmbedding) -> IngestionPipeline:
        return IngestionPipeline(transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), model])

    documents = [Document(text=text, doc_id=str(number)) for number, text in enumerate(TEXTS)]
    made = pipeline(embedding)
    first = made.run(documents=documents)
    made.persist(str(tmp_path))
    again = pipeline(STLLM2VecEmbedding.from_dict(embedding.to_dict()))
    again.load(str(tmp_path))
    again.transformations[1]._encoder = None  # an encoder that is asked would fail
    second = again.run(documents=documents)
    assert [one.embedding for one in second] == [one.embedding for one in first]
    other = pipeline(STLLM2VecEmbedding(embedding.model_name, normalize=True, text_instruction="Read:"))
    other.cache = IngestionCache.from_persist_path(str(tmp_path / "llama_cache"))
    third = other.run(documents=documents)
    assert not np.allclose(third[0].embedding, first[0].embedding), "another instruction, another vector"
    assert np.allclose(first[0].embedding, embedding.get_text_embedding(first[0].get_content()), atol=1e-6)


def test_async_queries_find_the_same(embedding: STLLM2VecEmbedding) -> None:
    index = VectorStoreIndex([TextNode(id_=str(n), text=text) for n, text in enumerate(TEXTS)], embed_model=embedding)
    retriever = index.as_retriever(similarity_top_k=2)

    async def ask() -> list[list[str]]:
        found = await asyncio.gather(*[retriever.aretrieve(text) for text in TEXTS])
        return [[one.node.node_id for one in nodes] for nodes in found]

    assert asyncio.run(ask()) == [[one.node.node_id for one in retriever.retrieve(text)] for text in TEXTS]
    assert not isinstance(index._embed_model, MockEmbedding)


def test_an_index_made_asynchronously_is_the_same(embedding: STLLM2VecEmbedding) -> None:
    documents = [TextNode(id_=str(n), text=text) for n, text in enumerate(TEXTS)]
    index = VectorStoreIndex(documents, embed_model=embedding, use_async=True)
    stored = index.vector_store.data.embedding_dict
    expected = embedding.encoder.encode_document(TEXTS, normalize_embeddings=True)
    assert np.allclose([stored[str(n)] for n in range(3)], expected, atol=1e-6)
