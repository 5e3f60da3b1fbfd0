"""A module as its saved folder would be loaded: what is proven is the folder, not the tokenizer in memory."""

from __future__ import annotations

import copy
import tempfile
from typing import Any

from sentence_transformers.base.modules import Transformer
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from st_llm2vec.host.quiet_loading import without_collection, without_reports


@without_collection()
def reload_reader(transformer: Transformer) -> Transformer:
    """Save what a stock ``Transformer`` reads with, and load it again around the same weights.

    Transformers' own tokenizer classes build parts of themselves anew when they are loaded, so that a tokenizer in
    memory says nothing about the one that its folder gives.

    Args:
        transformer: The module, its settings as they are to be saved; it is not changed.

    Returns:
        A module with the settings and the tokenizer that a plain load of the folder gives.
    """
    model = transformer.model
    with tempfile.TemporaryDirectory() as folder, without_reports():
        model.config.save_pretrained(folder)
        transformer.processor.save_pretrained(folder)
        transformer.save_config(folder)
        return as_stock(preloaded(model).load(folder, local_files_only=True), model)


def with_tokenizer(transformer: Transformer, tokenizer: PreTrainedTokenizerBase) -> Transformer:
    """A copy of a module, around the same weights, that reads with another tokenizer.

    Args:
        transformer: The module; it is not changed.
        tokenizer: The tokenizer.

    Returns:
        The copy.
    """
    made = copy.copy(transformer)
    made.input_formatter = copy.copy(transformer.input_formatter)
    made.processor = made.input_formatter.processor = tokenizer
    made._prompt_length_mapping = {}
    return made


def preloaded(model: PreTrainedModel) -> type[Transformer]:
    """A stock ``Transformer`` that takes a model in memory for the one that it is told to load."""

    class Preloaded(Transformer):
        def _load_model(self, *args: Any, **kwargs: Any) -> PreTrainedModel:
            return model

    return Preloaded


def as_stock(transformer: Transformer, model: PreTrainedModel) -> Transformer:
    """Make what :func:`preloaded` gave a stock ``Transformer`` by its class too."""
    transformer.__class__ = Transformer
    transformer._configure_use_cache(model.config, {})
    return transformer
