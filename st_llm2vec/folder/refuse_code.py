"""What a folder's settings may not ask for: kernels, which are downloaded and run as Python, and templates of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

BERT_CONFIG = "sentence_bert_config.json"
ALLOWED_FOR_LOADING = ("dtype", "torch_dtype", "attn_implementation")
ATTENTION = ("attn_implementation", "_attn_implementation", "_attn_implementation_internal")
ARGUMENTS = ("model_kwargs", "model_args")


def refuse_code(data: dict[str, Any], name: str, source: str | Path) -> None:
    """Raise if a settings file of a folder would have Transformers fetch code, or render a template that is not proven.

    Args:
        data: What the file holds.
        name: Its name.
        source: The folder's name, for the message.

    Raises:
        ValueError: If it names a kernel on the Hub, arguments for loading that are none of types and attention, or a chat
            template in another place than the tokenizer's.
    """
    for field, value in _fields(data):
        if field in ATTENTION and any(
            "/" in str(one) for one in (value.values() if isinstance(value, dict) else [value])
        ):
            raise ValueError(
                f"{name} of {source} asks for the attention {value!r}, a kernel on the Hub, whose code would be run. Remove "
                f"{field} there, and give attn_implementation yourself if you trust it."
            )
    if not name.endswith(BERT_CONFIG):
        return
    for field in ARGUMENTS:
        unknown = [one for one in data.get(field) or {} if one not in ALLOWED_FOR_LOADING]
        if unknown:
            raise ValueError(
                f"{name} of {source} has {unknown[0]!r} among its {field}, which is not taken from a folder: some such "
                f"arguments run code. There may be {', '.join(ALLOWED_FOR_LOADING)}; remove the others and give them to load."
            )
    groups = (data.get("processing_kwargs") or {}).values()
    if any(field == "chat_template" for field, _ in _fields(list(groups))):
        raise ValueError(
            f"{name} of {source} has a chat template among its processing_kwargs, which would be rendered in place of the "
            "tokenizer's. Remove it there."
        )


def _fields(data: Any) -> Iterator[tuple[str, Any]]:
    """All fields, also of what is inside, with their values."""
    if isinstance(data, dict):
        for field, value in data.items():
            yield field, value
            yield from _fields(value)
    elif isinstance(data, list):
        for one in data:
            yield from _fields(one)
