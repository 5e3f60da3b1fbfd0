"""A tokenizer as llama.cpp reads it, or the reason why llama.cpp would read texts otherwise."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from st_llm2vec.modules.formatter import leading_special_ids
from st_llm2vec.serving.exportable import CannotExport

GPT_2 = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
BYTES_ONLY = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": [GPT_2],
    "smollm": [{"type": "Digits", "individual_digits": True}, GPT_2],
    "llama-bpe": [{"type": "Split", "pattern": {"Regex": CONTRACTIONS + r"\p{N}{1,3}" + REST}}, BYTES_ONLY],
    "qwen2": [{"type": "Split", "pattern": {"Regex": CONTRACTIONS + r"\p{N}" + REST}}, BYTES_ONLY],
}
"""Byte-level pre-tokenizers by llama.cpp's names for them (``src/llama-vocab.cpp``), as ``tokenizer.json`` writes them."""
NORMALIZERS = {"qwen2": ({"type": "NFC"}, None)}
"""Normalizers beside none. llama.cpp has none: a text that is not in NFC is read otherwise there."""
TOKEN_TYPES = {"normal": 1, "unknown": 2, "control": 3, "user": 4, "unused": 5, "byte": 6}
"""``llama_token_type`` in llama.cpp's ``llama.h``."""


@dataclass(frozen=True)
class GgufTokenizer:
    """What GGUF metadata says of a tokenizer.

    Args:
        model: ``"gpt2"`` (byte-level BPE) or ``"llama"`` (SentencePiece).
        pre: llama.cpp's name of the pre-tokenizer.
        tokens: The tokens by id, as many as the embeddings have rows.
        types: The type of each, one of ``TOKEN_TYPES``.
        merges: Merges of byte-level BPE, ``"left right"``; empty for SentencePiece.
        scores: Scores of SentencePiece; empty for byte-level BPE.
        special: Ids of special tokens by their names in the metadata: ``bos``, ``eos``, ``unk``, ``pad``.
        adds_bos: Whether BOS stands before every text.
        adds_prefix_space: Whether SentencePiece puts a blank before every text.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    scores: list[float]
    special: dict[str, int]
    adds_bos: bool
    adds_prefix_space: bool


def read_tokenizer(tokenizer: PreTrainedTokenizerBase, rows: int) -> GgufTokenizer:
    """Read a fast tokenizer as llama.cpp does.

    Args:
        tokenizer: The encoder's tokenizer.
        rows: How many rows the embeddings have.

    Returns:
        What the metadata are to say.

    Raises:
        CannotExport: If llama.cpp has no tokenizer like it.
    """
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    model = backend["model"]
    if model["type"] != "BPE":
        raise CannotExport(f"its tokenizer is of the kind {model['type']}, and only BPE is exported")
    leading = leading_special_ids(tokenizer)
    if len(tokenizer("a")["input_ids"]) != len(leading) + len(tokenizer("a", add_special_tokens=False)["input_ids"]):
        raise CannotExport("its tokenizer puts a token behind every text")
    if leading not in ([], [tokenizer.bos_token_id]):
        raise CannotExport("its tokenizer puts other tokens than BOS before every text")
    added = {int(one["id"]): one for one in backend["added_tokens"]}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]]
    by_bytes = bool(model.get("byte_fallback"))
    tokens, types = _tokens(tokenizer, rows, added, by_bytes)
    special = {name: getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "unk", "pad")}
    if by_bytes:
        _require_sentencepiece(backend, model, merges, set(added))
    return GgufTokenizer(
        model="llama" if by_bytes else "gpt2",
        pre="default" if by_bytes else _pre_tokenizer(backend),
        tokens=tokens,
        types=types,
        merges=[] if by_bytes else merges,
        scores=_scores(tokens, merges) if by_bytes else [],
        special={name: index for name, index in special.items() if index is not None and index < rows},
        adds_bos=bool(leading),
        adds_prefix_space=by_bytes and tokenizer.tokenize("a")[0].startswith("▁"),
    )


def _tokens(
    tokenizer: PreTrainedTokenizerBase, rows: int, added: dict[int, dict[str, Any]], by_bytes: bool
) -> tuple[list[str], list[int]]:
    names = tokenizer.convert_ids_to_tokens(list(range(min(rows, len(tokenizer)))))
    tokens, types = [], []
    for index in range(rows):
        name = names[index] if index < len(names) else None
        if name is None:
            kind, name = "unused", f"[PAD{index}]"
        elif index == tokenizer.unk_token_id and by_bytes:
            kind = "unknown"
        elif index in added:
            kind = "control" if added[index]["special"] else "user"
            name = name.replace("▁", " ") if by_bytes and kind == "user" else name
        else:
            kind = "byte" if by_bytes and _is_byte(name) else "normal"
        tokens.append(name)
        types.append(TOKEN_TYPES[kind])
    return tokens, types


def _is_byte(name: str) -> bool:
    return len(name) == 6 and name.startswith("<0x") and name.endswith(">")


def _steps(part: dict[str, Any] | None, kind: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return [one for step in part[kind] for one in _steps(step, kind)] if part["type"] == "Sequence" else [part]


def _pre_tokenizer(backend: dict[str, Any]) -> str:
    """llama.cpp's name of a byte-level pre-tokenizer."""
    steps = _steps(backend["pre_tokenizer"], "pretokenizers")
    for name, known in PRE_TOKENIZERS.items():
        same = len(steps) == len(known) and all(
            all(step.get(key) == value for key, value in meant.items())
            for step, meant in zip(steps, known, strict=False)
        )
        if same and backend["normalizer"] in NORMALIZERS.get(name, (None,)):
            return name
    raise CannotExport(
        "llama.cpp has no pre-tokenizer that is known to split texts as this tokenizer does (a tokenizer that was taught an "
        "encoder's prompts is one of these; recipes whose tokenizer stays the decoder's are mean and last-token)"
    )


def _require_sentencepiece(backend: dict[str, Any], model: dict[str, Any], merges: list[str], added: set[int]) -> None:
    """Raise unless merging by scores, as llama.cpp does, is merging by this order."""
    normalizer = _steps(backend["normalizer"], "normalizers")
    for step in normalizer:
        blank = step["type"] == "Replace" and step["pattern"] == {"String": " "} and step["content"] == "▁"
        if not blank and not (step["type"] == "Prepend" and step["prepend"] == "▁"):
            raise CannotExport(f"its tokenizer changes texts by a {step['type']}, which llama.cpp does not")
    known, vocabulary = set(merges), model["vocab"]
    for token, index in vocabulary.items():
        if index in added or _is_byte(token):
            continue
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in vocabulary and right in vocabulary and f"{left} {right}" not in known:
                raise CannotExport(f"its tokenizer does not merge {left!r} and {right!r}, as SentencePiece would")


def _scores(tokens: list[str], merges: list[str]) -> list[float]:
    """The earlier a token is merged, the higher its score."""
    first: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        first.setdefault(pair.replace(" ", "", 1), rank)
    return [-float(first.get(token, 0)) for token in tokens]
