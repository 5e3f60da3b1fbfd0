"""From files and datasets to what the losses read: blocks, pairs with instructions, classes turned to examples."""

from st_llm2vec.data.blocks import pack_blocks
from st_llm2vec.data.checks import check_contrast, check_pairs, check_texts, require_texts
from st_llm2vec.data.labels import pairs_from_labels
from st_llm2vec.data.mixture import Mixture, named_mixtures, read_mixture
from st_llm2vec.data.read import read_dataset
from st_llm2vec.data.rows import require_columns
from st_llm2vec.data.source import TrainingSource
from st_llm2vec.data.training_data import TrainingData, build_training_data

__all__ = [
    "Mixture",
    "TrainingData",
    "TrainingSource",
    "build_training_data",
    "check_contrast",
    "check_pairs",
    "check_texts",
    "named_mixtures",
    "pack_blocks",
    "pairs_from_labels",
    "read_dataset",
    "read_mixture",
    "require_columns",
    "require_texts",
]
