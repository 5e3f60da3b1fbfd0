"""Index the Cranfield collection on disk, open the index again, and measure nDCG@10 with LangChain.

    python cranfield_search.py CRANFIELD --model my-encoder --store chroma --index my-index

CRANFIELD is a folder with cran.all.1400, cran.qry and cranqrel. Stores: chroma, qdrant, faiss.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.vectorstores import VectorStore

sys.path.insert(0, str(Path(__file__).parents[2]))
from cranfield import Collection, ndcg_at_10, own_search, read_cranfield, searched  # noqa: E402

from langchain_st_llm2vec import STLLM2VecEmbeddings  # noqa: E402

STORES = ("chroma", "qdrant", "faiss")


def open_index(store: str, folder: Path, embeddings: Embeddings, dimension: int) -> VectorStore:
    """An index on disk, new or old."""
    if store == "chroma":
        from chromadb.api.collection_configuration import CreateCollectionConfiguration
        from langchain_chroma import Chroma

        exact = CreateCollectionConfiguration(hnsw={"space": "cosine", "ef_construction": 400, "ef_search": 400})
        return Chroma("cranfield", embeddings, persist_directory=str(folder), collection_configuration=exact)
    if store == "qdrant":
        from langchain_qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient
        from qdrant_client.models import Distance, VectorParams

        client = QdrantClient(path=str(folder))
        if not client.collection_exists("cranfield"):
            client.create_collection("cranfield", VectorParams(size=dimension, distance=Distance.COSINE))
        try:
            return QdrantVectorStore(client, "cranfield", embeddings)
        except Exception:
            client.close()
            raise
    return _open_faiss(folder, embeddings, dimension)


def _open_faiss(folder: Path, embeddings: Embeddings, dimension: int) -> VectorStore:
    import faiss
    from langchain_community.docstore.in_memory import InMemoryDocstore
    from langchain_community.vectorstores import FAISS
    from langchain_community.vectorstores.utils import DistanceStrategy

    strategy = DistanceStrategy.MAX_INNER_PRODUCT
    if not (folder / "index.faiss").is_file():
        return FAISS(embeddings, faiss.IndexFlatIP(dimension), InMemoryDocstore(), {}, distance_strategy=strategy)
    # LangChain keeps the documents beside a FAISS index in a pickle, so open only what you wrote yourself.
    return FAISS.load_local(str(folder), embeddings, distance_strategy=strategy, allow_dangerous_deserialization=True)


def close_index(index: VectorStore, folder: Path) -> None:
    """Leave everything on disk."""
    if hasattr(index, "save_local"):
        index.save_local(str(folder))
    elif hasattr(index, "client"):
        index.client.close()


def add(index: VectorStore, collection: Collection) -> None:
    """Put the documents into the index."""
    documents = [Document(text, metadata={"name": name}) for name, text in collection.documents.items()]
    for begin in range(0, len(documents), 500):
        index.add_documents(documents[begin : begin + 500])


def search(index: VectorStore, collection: Collection) -> dict[str, list[str]]:
    """The ten best documents for each query."""
    retriever = index.as_retriever(search_kwargs={"k": 10})
    return searched(collection, lambda query: [one.metadata["name"] for one in retriever.invoke(query)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--store", choices=STORES, default="chroma")
    parser.add_argument("--index", type=Path, required=True)
    given: Any = parser.parse_args()
    collection = read_cranfield(given.collection)
    embeddings = STLLM2VecEmbeddings(model=given.model, normalize=True)
    if not given.index.exists():
        index = open_index(given.store, given.index, embeddings, embeddings.dimension)
        add(index, collection)
        close_index(index, given.index)
    index = open_index(given.store, given.index, embeddings, embeddings.dimension)
    print(f"{given.store}: nDCG@10 {ndcg_at_10(search(index, collection), collection.relevant):.4f}")
    best = own_search(embeddings.encoder, collection)
    print(f"exact search: nDCG@10 {ndcg_at_10(best, collection.relevant):.4f}")


if __name__ == "__main__":
    main()
