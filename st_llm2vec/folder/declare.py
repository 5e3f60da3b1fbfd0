"""Say what an encoder is in the spellings that servers read, where they say it exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sentence_transformers.sentence_transformer.modules import Pooling, WordWeights

from st_llm2vec.encoding.text_reader import TextReader
from st_llm2vec.modules.formatter import UNLIMITED

OLD_POOLING_KEYS = {
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
    "max": "pooling_mode_max_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}
"""How Sentence Transformers before 6 wrote the poolings, and Text Embeddings Inference and llama.cpp's converter read them."""


def declare(encoder: TextReader, folder: Path) -> None:
    """Add the keys that servers read to a saved folder.

    The longest input stands in ``sentence_bert_config.json`` beside the tokenizer's own. The pooling is written in the old
    spelling too, but only where every token of what is read is pooled, and what is read is the prompt and the text: a server
    that knows no more than these keys would give other vectors of any other encoder, and had better refuse its folder.

    Args:
        encoder: The encoder.
        folder: Its folder, as Sentence Transformers wrote it.
    """
    limit = encoder.max_seq_length
    if limit is not None and limit < UNLIMITED:
        _add(folder / "sentence_bert_config.json", {"max_seq_length": limit})
    if not pools_prompt_and_text(encoder):
        return
    for module in json.loads((folder / "modules.json").read_text(encoding="utf-8")):
        if module["type"].rsplit(".", 1)[-1] == Pooling.__name__:
            path = folder / module["path"] / "config.json"
            settings = json.loads(path.read_text(encoding="utf-8"))
            old = {key: settings["pooling_mode"] == mode for mode, key in OLD_POOLING_KEYS.items()}
            _add(path, old)


def pools_prompt_and_text(encoder: TextReader) -> bool:
    """Whether all that the encoder reads is the prompt and the text, as one string, and all of its tokens are pooled."""
    poolings = [module for module in encoder if isinstance(module, Pooling)]
    return (
        encoder.layout in ("prefix", "text")
        and all(one.include_prompt and isinstance(one.pooling_mode, str) for one in poolings)
        and not any(isinstance(module, WordWeights) for module in encoder)
    )


def _add(path: Path, further: dict[str, Any]) -> None:
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**settings, **further}, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
