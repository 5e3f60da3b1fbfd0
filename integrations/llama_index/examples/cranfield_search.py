"""Index the Cranfield collection on disk, open the index again, and measure nDCG@10 with LlamaIndex.

    python cranfield_search.py CRANFIELD --model my-encoder --store faiss --index my-index

CRANFIELD is a folder with cran.all.1400, cran.qry and cranqrel. Stores: faiss, chroma, qdrant, lancedb.
"""

from __future__ import annotations

import argparse
import sys
import uuid
from pathlib import Path
from typing import Any

from llama_index.core import StorageContext, VectorStoreIndex, load_index_from_storage
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import BasePydanticVectorStore
from llama_index.embeddings.st_llm2vec import STLLM2VecEmbedding

sys.path.insert(0, str(Path(__file__).parents[2]))
from cranfield import Collection, ndcg_at_10, own_search, read_cranfield, searched  # noqa: E402

STORES = ("faiss", "chroma", "qdrant", "lancedb")


def open_store(store: str, folder: Path, dimension: int) -> BasePydanticVectorStore:
    """A vector store on disk, new or old."""
    if store == "faiss":
        import faiss
        from llama_index.vector_stores.faiss import FaissVectorStore

        if folder.exists():
            return FaissVectorStore.from_persist_dir(str(folder))
        return FaissVectorStore(faiss_index=faiss.IndexFlatIP(dimension))
    if store == "chroma":
        import chromadb
        from llama_index.vector_stores.chroma import ChromaVectorStore

        exact = {"hnsw": {"space": "cosine", "ef_construction": 400, "ef_search": 400}}
        client = chromadb.PersistentClient(str(folder))
        return ChromaVectorStore(chroma_collection=client.get_or_create_collection("cranfield", configuration=exact))
    if store == "qdrant":
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient

        return QdrantVectorStore("cranfield", client=QdrantClient(path=str(folder)))
    from llama_index.vector_stores.lancedb import LanceDBVectorStore

    mode = "append" if folder.exists() else "create"
    return LanceDBVectorStore(uri=str(folder), table_name="cranfield", mode=mode)


def nodes(collection: Collection) -> list[TextNode]:
    """The documents as LlamaIndex has them; their names are not embedded, and Qdrant wants UUIDs for ids."""
    return [
        TextNode(
            id_=str(uuid.uuid5(uuid.NAMESPACE_OID, name)),
            text=text,
            metadata={"name": name},
            excluded_embed_metadata_keys=["name"],
        )
        for name, text in collection.documents.items()
    ]


def build(store: str, folder: Path, embedding: BaseEmbedding, dimension: int, documents: list[TextNode]) -> None:
    """Put the documents into a new index and leave it on disk."""
    context = StorageContext.from_defaults(vector_store=open_store(store, folder, dimension))
    index = VectorStoreIndex(documents, storage_context=context, embed_model=embedding)
    if store == "faiss":
        index.storage_context.persist(str(folder))
    close(index)


def reopen(store: str, folder: Path, embedding: BaseEmbedding, dimension: int) -> VectorStoreIndex:
    """The index as it is on disk."""
    opened = open_store(store, folder, dimension)
    if store == "faiss":
        context = StorageContext.from_defaults(vector_store=opened, persist_dir=str(folder))
        return load_index_from_storage(context, embed_model=embedding)
    return VectorStoreIndex.from_vector_store(opened, embed_model=embedding)


def close(index: VectorStoreIndex) -> None:
    """Let go of the files: Qdrant locks its folder."""
    client = getattr(index.vector_store, "client", None)
    if hasattr(client, "close"):
        client.close()


def search(index: VectorStoreIndex, collection: Collection) -> dict[str, list[str]]:
    """The ten best documents for each query."""
    retriever = index.as_retriever(similarity_top_k=10)
    return searched(collection, lambda query: [found.node.metadata["name"] for found in retriever.retrieve(query)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--store", choices=STORES, default="faiss")
    parser.add_argument("--index", type=Path, required=True)
    given: Any = parser.parse_args()
    collection = read_cranfield(given.collection)
    embedding = STLLM2VecEmbedding(given.model, normalize=True)
    if not given.index.exists():
        build(given.store, given.index, embedding, embedding.dimension, nodes(collection))
    index = reopen(given.store, given.index, embedding, embedding.dimension)
    print(f"{given.store}: nDCG@10 {ndcg_at_10(search(index, collection), collection.relevant):.4f}")
    best = own_search(embedding.encoder, collection)
    print(f"exact search: nDCG@10 {ndcg_at_10(best, collection.relevant):.4f}")


if __name__ == "__main__":
    main()
