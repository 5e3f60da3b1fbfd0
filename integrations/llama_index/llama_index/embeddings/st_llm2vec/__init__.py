"""LlamaIndex embeddings with st-llm2vec encoders."""

from llama_index.embeddings.st_llm2vec.base import STLLM2VecEmbedding

__all__ = ["STLLM2VecEmbedding"]
