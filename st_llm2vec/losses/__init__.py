"""Losses with the Sentence Transformers signature, for the stock ``SentenceTransformerTrainer``."""

from st_llm2vec.losses.contrastive import CachedHardNegativesRankingLoss, HardNegativesRankingLoss
from st_llm2vec.losses.cosent import OnePassCoSENTLoss
from st_llm2vec.losses.distillation import SimilarityDistillationLoss
from st_llm2vec.losses.masking import TokenMasker, add_mask_token
from st_llm2vec.losses.mntp import MNTPLoss
from st_llm2vec.losses.simcse import SimCSELoss

__all__ = [
    "CachedHardNegativesRankingLoss",
    "HardNegativesRankingLoss",
    "MNTPLoss",
    "OnePassCoSENTLoss",
    "SimCSELoss",
    "SimilarityDistillationLoss",
    "TokenMasker",
    "add_mask_token",
]
