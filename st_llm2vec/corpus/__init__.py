"""Embed corpora of any size: sharded, resumable.

In reading order: ``source`` (what a corpus is), ``settings`` (what is asked for), ``job_folder`` (what is on disk),
``shard_encoder`` (rows to vectors), ``devices`` (one process for each), ``run``.
"""

from st_llm2vec.corpus.progress import Progress
from st_llm2vec.corpus.reading import read_embeddings
from st_llm2vec.corpus.run import embed_corpus
from st_llm2vec.corpus.settings import EmbeddingSettings
from st_llm2vec.corpus.source import open_source

__all__ = ["EmbeddingSettings", "Progress", "embed_corpus", "open_source", "read_embeddings"]
