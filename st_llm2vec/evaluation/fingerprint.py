"""Digests of encoders: any change of weights, settings, tokenizer or modules gives another one."""

from __future__ import annotations

import hashlib
import json
from typing import Any, cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from torch import nn

PASSING = ("_name_or_path", "transformers_version")
VERSION = 1
"""Raised when an encoder with the same folder gives other vectors, so that kept results are not read."""


def encoder_fingerprint(encoder: SentenceTransformer) -> str:
    """A digest of all that a text's vector depends on.

    Args:
        encoder: Any encoder.

    Returns:
        64 hexadecimal digits.

    Example:
        >>> from st_llm2vec import convert, decoder_path
        >>> one, other = (convert(decoder_path(), recipe, measure=False) for recipe in ("llm2vec", "sgpt"))
        >>> encoder_fingerprint(one) == encoder_fingerprint(other)
        False
    """
    modules = [[f"{type(one).__module__}.{type(one).__name__}", _settings(one)] for one in encoder]
    prompts = [encoder.prompts, encoder.default_prompt_name, encoder.truncate_dim]
    manifest: Any = getattr(encoder, "manifest", None)
    recipe = manifest.config.to_dict() if manifest is not None else None
    template = getattr(encoder.tokenizer, "chat_template", None)
    settings = [VERSION, encoder.max_seq_length, prompts, template]
    if isinstance(encoder[0], Transformer):
        digest, others = decoder_digest(encoder, settings, [modules, recipe]), list(encoder)[1:]
    else:
        digest, others = _begun([*settings, modules, recipe]), list(encoder)
    for module in others:
        _add_weights(digest, module)
    return str(digest.hexdigest())


def decoder_digest(encoder: SentenceTransformer, settings: list[Any], rest: Any) -> Any:
    """The beginning of a digest: some settings, the configuration, the tokenizer and every weight of the first module.

    Args:
        encoder: The encoder.
        settings: What the digest is of, beside the decoder.
        rest: More of it, behind the tokenizer.

    Returns:
        The digest, to which more may be added.
    """
    transformer = cast("Transformer", encoder[0])
    config = {name: value for name, value in transformer.model.config.to_dict().items() if name not in PASSING}
    tokenizer: Any = transformer.tokenizer
    read_by = json.loads(tokenizer.backend_tokenizer.to_str())
    read_by |= {"truncation": None, "padding": None}  # what the last call left there
    modality = next(iter(transformer.modality_config.values()))
    digest = _begun([*settings, modality, config, read_by, rest])
    _add_weights(digest, transformer.model)
    return digest


def _begun(settings: list[Any]) -> Any:
    return hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())


def _add_weights(digest: Any, module: nn.Module) -> None:
    for name, weight in sorted(module.state_dict().items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().contiguous().flatten().view(torch.uint8).cpu().numpy().data)


def _settings(module: nn.Module) -> Any:
    """What a module saves of itself."""
    described = getattr(module, "get_config_dict", None)
    return described() if described is not None else repr(module)
