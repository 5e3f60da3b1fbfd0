"""LangChain embeddings with st-llm2vec encoders."""

from langchain_st_llm2vec.embeddings import STLLM2VecEmbeddings

__all__ = ["STLLM2VecEmbeddings"]
