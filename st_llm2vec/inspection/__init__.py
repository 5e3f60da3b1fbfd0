"""What a model is, and what could be made of it."""

from st_llm2vec.inspection.decoder import Inspection, inspect_model
from st_llm2vec.inspection.encoder import EncoderInspection, inspect_encoder, is_encoder
from st_llm2vec.inspection.readiness import Readiness
from st_llm2vec.inspection.recipes import Outlook
from st_llm2vec.inspection.tokenizer import TokenizerFacts

__all__ = [
    "EncoderInspection",
    "Inspection",
    "Outlook",
    "Readiness",
    "TokenizerFacts",
    "inspect_encoder",
    "inspect_model",
    "is_encoder",
]
