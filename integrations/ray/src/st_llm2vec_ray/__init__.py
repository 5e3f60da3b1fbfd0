"""Embed corpora on a Ray cluster."""

from st_llm2vec_ray.job import embed_corpus_on_ray

__all__ = ["embed_corpus_on_ray"]
