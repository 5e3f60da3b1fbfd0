"""What an encoder has learned."""

from st_llm2vec.evaluation.masked_tokens import MNTPEvaluator
from st_llm2vec.evaluation.words import encode_words

__all__ = ["MNTPEvaluator", "encode_words"]
