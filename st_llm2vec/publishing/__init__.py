"""Publish encoders on the Hugging Face Hub: whole, verified, with a model card, in one commit."""

from st_llm2vec.publishing.publication import Publication, publish

__all__ = ["Publication", "publish"]
