"""Are an encoder's modules what its manifest says, and does its tokenizer fit its embeddings?"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sentence_transformers.base.modules import Normalize
from sentence_transformers.sentence_transformer.modules import Pooling, WordWeights
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from st_llm2vec.encoding.text_reader import TextReader
from st_llm2vec.modules.attention import configured_attention
from st_llm2vec.modules.formatter import InstructionFormatter
from st_llm2vec.modules.latent_attention import LatentAttentionPooling
from st_llm2vec.modules.readings import MeanOfReadings
from st_llm2vec.modules.span_pooling import SpanPooling
from st_llm2vec.modules.special_tokens import leading_special_ids
from st_llm2vec.recipe.config import EncoderConfig
from st_llm2vec.recipe.poolings import POOLINGS


def disagreements(encoder: TextReader) -> list[str]:
    """Hold the manifest against the modules: layout, templates, layer, attention, pooling, normalisation.

    The longest input and the prompts may be changed after conversion; modules that are added behind the pooling are not
    the manifest's business either.

    Args:
        encoder: The encoder; without a manifest there is nothing to hold.

    Returns:
        What differs, as parts of a sentence.
    """
    if encoder.manifest is None:
        return []
    config, layout = encoder.manifest.config, encoder.manifest.layout
    formatter = getattr(encoder[0], "formatter", None)
    found_layout = "message" if "message" in encoder.transformer.modality_config else "text"
    if formatter is not None:
        found_layout = "custom"
    elif getattr(encoder.transformer.model.config, "st_llm2vec_layout", None) == "prefix":
        found_layout = "prefix"
    statements: dict[str, tuple[Any, Any]] = {
        "layout": (layout, found_layout),
        "attention": (config.attention, configured_attention(encoder.transformer.model)),
        "hidden states": (
            "last_hidden_state" if config.layer == -1 else ["hidden_states", config.layer],
            _plain(encoder.transformer.modality_config["text"]["method_output_name"]),
        ),
        "normalisation": (config.normalize, any(isinstance(module, Normalize) for module in encoder)),
        "pooling": (_meant_pooling(config, layout), _found_pooling(encoder)),
    }
    if layout == "custom":
        statements["templates"] = (config.formatter_config(), formatter)
        means = [module.readings for module in encoder if isinstance(module, MeanOfReadings)]
        meant = [len(config.readings)] if len(config.readings) > 1 else []
        statements["means of readings"] = (meant, means)
    if layout == "text":
        span = not InstructionFormatter(**config.formatter_config()).template.pools_everything
        statements["pooling of the prompt"] = (not span, all(one.include_prompt for one in _poolings(encoder, Pooling)))
        bos = leading_special_ids(encoder.tokenizer)
        if span and bos and config.pooling == "mean":
            statements["weight of BOS"] = (0.0, _weight_of(encoder, bos[0]))
    return [
        f"its {what} should be {_said(meant)}, and is {_said(found)}"
        for what, (meant, found) in statements.items()
        if meant != found
    ]


def require_tokenizer_fits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, source: str | Path) -> None:
    """Raise if the tokenizer has tokens that the embeddings have no row for.

    Special tokens at the end may lack one: some text models are published with the tokenizer of their larger siblings
    that read images too, whose marks no text contains.

    Args:
        model: The decoder.
        tokenizer: Its tokenizer.
        source: Its name, for the message.

    Raises:
        ValueError: If a text could become such a token.
    """
    embeddings: Any = model.get_input_embeddings()
    rows = int(embeddings.weight.shape[0])
    if len(tokenizer) <= rows:
        return
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    beyond = {index: token for token, index in tokenizer.get_vocab().items() if index >= rows and index not in special}
    if beyond:
        raise ValueError(
            f"The tokenizer of {source} has {len(beyond)} tokens that the model has no embedding for (the first is "
            f"{beyond[min(beyond)]!r}, number {min(beyond)}, while the embeddings have {rows} rows): it belongs to another "
            "model, or tokens were added without resize_token_embeddings. Bring the two together again."
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _meant_pooling(config: EncoderConfig, layout: str) -> str:
    rule = POOLINGS.get(config.pooling)
    return rule.stock if layout != "custom" and rule is not None and rule.stock is not None else config.pooling


def _found_pooling(encoder: TextReader) -> str:
    found = [_plain(one.pooling_mode) for one in _poolings(encoder, Pooling, SpanPooling)]
    found += ["latent_attention" for _ in _poolings(encoder, LatentAttentionPooling)]
    return str(found[0]) if len(found) == 1 else f"{len(found)} poolings"


def _poolings(encoder: TextReader, *classes: type) -> Iterator[Any]:
    return (module for module in encoder if isinstance(module, classes))


def _weight_of(encoder: TextReader, token: int) -> float:
    """What ``WordWeights`` makes of a token; one where there are none."""
    weights = [module.emb_layer.weight.detach() for module in encoder if isinstance(module, WordWeights)]
    return float(weights[0][token]) if weights and token < len(weights[0]) else 1.0


def _said(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else f"{value!r}"
