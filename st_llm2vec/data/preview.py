"""What a model will read of training data: token by token with what is pooled, lengths, repetitions, and leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers import PreTrainedTokenizerBase

from st_llm2vec.data.overlap import near_pairs, normalized, repeated
from st_llm2vec.data.rows import FLAG_EMBEDDING, SIMCSE
from st_llm2vec.encoding.text_reader import TextReader
from st_llm2vec.layouts.text import left_out
from st_llm2vec.modules.formatter import UNLIMITED

BATCH = 64
TEXT_COLUMNS = {"text", "anchor", "positive", "sentence1", "sentence2", "premise", "hypothesis"} | {
    *FLAG_EMBEDDING.values(),
    *SIMCSE.values(),
}
SAMPLES = 5
LAST, FIRST = {"lasttoken", "last_token"}, {"cls"}
UNREADABLE, BLANK = "\ufffd", "\u2581"


@dataclass(frozen=True)
class ReadText:
    """A text as the model reads it.

    Args:
        text: The text.
        ids: Its tokens; of a text that is read more than once, those of the first reading.
        tokens: Each token as text; what is no whole character, as the vocabulary writes it.
        pooled: For each, whether the vector is made of it.
        cut: How many tokens did not fit.
    """

    text: str
    ids: list[int]
    tokens: list[str]
    pooled: list[bool]
    cut: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        rows = zip(self.ids, self.tokens, self.pooled, strict=True)
        return {
            "text": self.text,
            "tokens": [{"id": one, "token": token, "pooled": pooled} for one, token, pooled in rows],
            "cut": self.cut,
        }


def read_text(encoder: TextReader, text: str, instruction: str | None = None) -> ReadText:
    """Read a text as the encoder does, by the modules that it has.

    Args:
        encoder: The encoder.
        text: The text.
        instruction: Its bare instruction.

    Raises:
        ValueError: If the encoder takes no instruction and one is given.
    """
    features = encoder.preprocess([text], prompt=instruction)
    read = features["attention_mask"][0].bool()
    ids = features["input_ids"][0][read].tolist()
    pooled = _pooled(encoder, features, ids, read)
    tokens = [_written(encoder.tokenizer, one) for one in ids]
    return ReadText(text, ids, tokens, pooled, max(0, int(lengths(encoder, [text], instruction)[0]) - len(ids)))


def lengths(encoder: TextReader, texts: Sequence[str], instruction: str | None = None) -> np.ndarray:
    """How many tokens each text has, template and instruction included, if nothing is cut; the first time that it is read.

    Args:
        encoder: The encoder.
        texts: The texts.
        instruction: The bare instruction of all.

    Returns:
        The numbers, of shape ``(texts,)``.
    """
    order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
    found = np.zeros(len(texts), dtype=int)
    for start in range(0, len(order), BATCH):
        numbers = order[start : start + BATCH]
        features = encoder.preprocess([texts[at] for at in numbers], prompt=instruction, max_length=UNLIMITED)
        found[numbers] = features["attention_mask"].sum(dim=1).reshape(len(numbers), -1)[:, 0].numpy()
    return found


def describe_rows(encoder: TextReader, rows: Dataset, prompts: Mapping[str, str], shown: int = 3) -> dict[str, Any]:
    """What an encoder makes of rows of texts.

    Args:
        encoder: The encoder.
        rows: Columns of texts.
        prompts: The instruction of each column that has one.
        shown: How many rows to read token by token.

    Returns:
        ``limit``, ``columns`` (lengths in tokens and the share that is cut, for each) and ``rows`` (``ReadText`` by column).
    """
    limit = encoder.max_seq_length
    columns = {}
    for name in rows.column_names:
        counts = lengths(encoder, list(rows[name]), prompts.get(name))
        columns[name] = {
            "mean": float(counts.mean()),
            "median": float(np.median(counts)),
            "95 %": float(np.percentile(counts, 95)),
            "longest": int(counts.max()),
            "cut": float((counts > limit).mean()) if limit else 0.0,
        }
    first = [
        {name: read_text(encoder, text, prompts.get(name)) for name, text in row.items()}
        for row in rows.select(range(min(shown, len(rows))))
    ]
    return {"limit": limit, "columns": columns, "rows": first}


def describe_repetitions(rows: Dataset, threshold: float = 0.8) -> dict[str, Any]:
    """How many rows repeat another one, and which nearly do.

    Args:
        rows: Columns of texts; the first is compared, and the first two together.
        threshold: As for :func:`near_pairs`.

    Returns:
        Numbers of rows that repeat an earlier one's first text (``queries``) and both of its texts (``pairs``), near pairs
        of different first texts (``near``), and some of these.
    """
    names = rows.column_names[:2]
    queries = list(rows[names[0]])
    both = [normalized("\n".join(row)) for row in zip(*(rows[name] for name in names), strict=True)]
    different = list(dict.fromkeys(queries))
    near = [
        pair
        for pair in near_pairs(different, threshold=threshold)
        if normalized(different[pair.first]) != normalized(different[pair.second])
    ]
    return {
        "queries": sum(len(group) - 1 for group in repeated(queries)),
        "pairs": len(both) - len(set(both)),
        "near": len(near),
        "samples": [(different[one], different[other], share) for one, other, share in near[:SAMPLES]],
    }


def describe_leaks(rows: Dataset, held_out: Sequence[str], threshold: float = 0.8) -> dict[str, Any]:
    """Which texts of an evaluation set stand in training data.

    Args:
        rows: The training data: columns of texts.
        held_out: The evaluation set's texts.
        threshold: As for :func:`near_pairs`.

    Returns:
        How many different texts the set has (``texts``), how many of them training has to the letter but for case, blanks and
        punctuation (``exact``), how many others nearly (``near``), and some of both with what training has.
    """
    training = list(dict.fromkeys(text for name in rows.column_names for text in rows[name]))
    known = {normalized(text): text for text in training}
    texts = list(dict.fromkeys(held_out))
    exact = [(text, known[normalized(text)], 1.0) for text in texts if normalized(text) in known]
    rest = [text for text in texts if normalized(text) not in known]
    nearest: dict[int, tuple[int, float]] = {}
    for one, other, share in near_pairs(rest, training, threshold):
        if share > nearest.get(one, (0, 0.0))[1]:
            nearest[one] = (other, share)
    near = [(rest[one], training[other], share) for one, (other, share) in nearest.items()]
    return {"texts": len(texts), "exact": len(exact), "near": len(near), "samples": exact[:SAMPLES] + near[:SAMPLES]}


def texts_of(table: Dataset) -> list[str]:
    """All texts of a table: of the columns that the task types and the usual formats name, or else of every column of texts.

    Args:
        table: An evaluation set, as it is; columns may hold lists of texts.
    """
    known = [name for name in table.column_names if name in TEXT_COLUMNS or name.startswith("negative")]
    found: list[str] = []
    for name in known or table.column_names:
        for value in table[name]:
            texts = value if isinstance(value, list) else [value]
            found += [text for text in texts if isinstance(text, str) and text.strip()]
    return found


def _written(tokenizer: PreTrainedTokenizerBase, one: int) -> str:
    """A token as text, with the blank that it begins with; what is no whole character as the vocabulary writes it."""
    entry = str(tokenizer.convert_ids_to_tokens(one))
    text = str(tokenizer.decode([one], clean_up_tokenization_spaces=False))
    if UNREADABLE in text or not text:
        return entry
    return f" {text}" if entry.startswith(BLANK) and not text.startswith(" ") else text


def _pooled(encoder: TextReader, features: Mapping[str, Any], ids: list[int], read: torch.Tensor) -> list[bool]:
    """Which tokens the modules make the vector of."""
    pooling: Any = next(module for module in encoder if hasattr(module, "pooling_mode") or hasattr(module, "latents"))
    if "pooling_mask" in features:
        marked = features["pooling_mask"][0][read].bool().tolist()
    else:
        include_prompt, dropped = left_out(list(encoder))
        skipped = 0 if include_prompt else features.get("prompt_length") or 0
        marked = [at >= skipped and token not in dropped for at, token in enumerate(ids)]
    mode = getattr(pooling, "pooling_mode", "")
    modes = {mode} if isinstance(mode, str) else set(mode)
    places = [at for at, one in enumerate(marked) if one]
    if modes <= LAST:
        places = places[-1:]
    elif modes <= FIRST:
        places = places[:1]
    return [at in set(places) for at in range(len(ids))]
