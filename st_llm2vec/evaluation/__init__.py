"""What an encoder has learned."""

from st_llm2vec.evaluation.masked_tokens import MNTPEvaluator

__all__ = ["MNTPEvaluator"]
