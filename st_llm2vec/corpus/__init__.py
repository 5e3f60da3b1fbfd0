"""Embed corpora of any size: sharded, resumable.

In reading order: ``corpus`` (what it is), ``settings`` (what is asked for), ``job_folder`` (what is on disk),
``shard_encoder`` (rows to vectors), ``devices`` (one process for each), ``run``.
"""

from st_llm2vec.corpus.corpus import open_corpus
from st_llm2vec.corpus.progress import Progress
from st_llm2vec.corpus.read_embeddings import read_embeddings
from st_llm2vec.corpus.run import embed_corpus
from st_llm2vec.corpus.settings import EmbeddingSettings

__all__ = ["EmbeddingSettings", "Progress", "embed_corpus", "open_corpus", "read_embeddings"]
