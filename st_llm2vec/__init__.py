"""Turn any decoder-only language model into a text encoder.

>>> from st_llm2vec import convert, decoder_path
>>> encoder = convert(decoder_path(), "llm2vec")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_EXPORTS = {
    "convert": "st_llm2vec.conversion.convert",
    "load": "st_llm2vec.folder.load",
    "accelerate": "st_llm2vec.encoding.accelerate",
    "check": "st_llm2vec.checking",
    "publish": "st_llm2vec.publishing",
    "export_gguf": "st_llm2vec.serving.gguf_export",
    "export_onnx": "st_llm2vec.serving.onnx_export",
    "from_published": "st_llm2vec.importing",
    "from_llm2vec": "st_llm2vec.importing",
    "from_nv_embed": "st_llm2vec.importing",
    "inspect_model": "st_llm2vec.inspection",
    "decoder_path": "st_llm2vec.assets",
    "EncoderConfig": "st_llm2vec.recipe.config",
    "Demonstration": "st_llm2vec.recipe.config",
    "RECIPES": "st_llm2vec.recipe.config",
    "get_recipe": "st_llm2vec.recipe.config",
    "TextEncoder": "st_llm2vec.folder.encoder",
    "InstructionFormatter": "st_llm2vec.modules",
    "BidirectionalTransformer": "st_llm2vec.modules",
    "SpanPooling": "st_llm2vec.modules",
    "LatentAttentionPooling": "st_llm2vec.modules",
    "CausalAttentionError": "st_llm2vec.modules",
    "probe_attention": "st_llm2vec.modules",
    "set_attention": "st_llm2vec.modules",
}

__all__ = ["__version__", *_EXPORTS]

if TYPE_CHECKING:
    from st_llm2vec.assets import decoder_path as decoder_path
    from st_llm2vec.checking import check as check
    from st_llm2vec.conversion.convert import convert as convert
    from st_llm2vec.encoding.accelerate import accelerate as accelerate
    from st_llm2vec.folder.encoder import TextEncoder as TextEncoder
    from st_llm2vec.folder.load import load as load
    from st_llm2vec.importing import from_llm2vec as from_llm2vec
    from st_llm2vec.importing import from_nv_embed as from_nv_embed
    from st_llm2vec.importing import from_published as from_published
    from st_llm2vec.inspection import inspect_model as inspect_model
    from st_llm2vec.modules import BidirectionalTransformer as BidirectionalTransformer
    from st_llm2vec.modules import CausalAttentionError as CausalAttentionError
    from st_llm2vec.modules import InstructionFormatter as InstructionFormatter
    from st_llm2vec.modules import LatentAttentionPooling as LatentAttentionPooling
    from st_llm2vec.modules import SpanPooling as SpanPooling
    from st_llm2vec.modules import probe_attention as probe_attention
    from st_llm2vec.modules import set_attention as set_attention
    from st_llm2vec.publishing import publish as publish
    from st_llm2vec.recipe.config import RECIPES as RECIPES
    from st_llm2vec.recipe.config import Demonstration as Demonstration
    from st_llm2vec.recipe.config import EncoderConfig as EncoderConfig
    from st_llm2vec.recipe.config import get_recipe as get_recipe
    from st_llm2vec.serving.gguf_export import export_gguf as export_gguf
    from st_llm2vec.serving.onnx_export import export_onnx as export_onnx


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'st_llm2vec' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
