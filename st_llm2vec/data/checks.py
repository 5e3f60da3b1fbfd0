"""What must hold of a dataset before any training time is spent on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from datasets import Dataset, DatasetDict
from datasets.utils import tqdm
from sentence_transformers.base.data_collator import DEFAULT_LABEL_COLUMNS
from transformers import PreTrainedTokenizerBase

from st_llm2vec.data.rows import as_text, refuse_equal_negative
from st_llm2vec.data.sources import require_columns

BATCH = 1000


def check_texts(
    dataset: Dataset,
    column: str,
    tokenizer: PreTrainedTokenizerBase,
    *,
    min_tokens: int = 2,
    every: bool = True,
    where: str = "the dataset",
) -> None:
    """Raise unless the rows hold texts that a loss can learn from. Reads and tokenises the whole column.

    Args:
        dataset: The dataset.
        column: The column with the texts.
        tokenizer: The encoder's tokenizer.
        min_tokens: Fewest tokens of a text, special tokens aside. A text of one token has no context that a masked one
            could be predicted from; 1 allows them, where they are meant.
        every: Whether every row must be so long. Where texts are packed into blocks, blank lines and single words among
            them do no harm: then it is enough that one is.
        where: What the dataset is called in messages.

    Raises:
        ValueError: If there is no such column or no row, a row holds no text, or texts are too short.

    Example:
        >>> from st_llm2vec.tiny_tokenizers import tiny_tokenizer
        >>> dataset = Dataset.from_dict({"text": ["A violin is carved from spruce.", "Rain fell all night."]})
        >>> check_texts(dataset, "text", tiny_tokenizer("byte-level+bos"))
    """
    require_columns(dataset, [column], where)
    if not len(dataset):
        raise ValueError(f"There are no rows in {where}, so there is nothing to learn from.")
    first, count = "", 0
    for start, batch in _batches(dataset.select_columns([column]), where):
        texts = [as_text(one, column, where, start + at, blank=not every) for at, one in enumerate(batch[column])]
        ids = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        short = [at for at, row in enumerate(ids) if len(row) < min_tokens]
        if short and not count:
            first = f"row {start + short[0]} (the first is 0) with {texts[short[0]][:40]!r}"
        count += len(short)
    if count == len(dataset) or (count and every):
        share = f"All {count}" if count == len(dataset) else f"{count} of the {len(dataset)}"
        raise ValueError(
            f"{share} texts in {column!r} of {where} have fewer than {min_tokens} tokens, beginning with {first}. Remove "
            "them, for example with dataset.filter."
        )


def check_pairs(dataset: Dataset | DatasetDict, where: str = "the dataset") -> None:
    """Raise if a hard negative equals its row's positive or query, blanks around them aside. Reads the whole dataset.

    Args:
        dataset: Columns as the contrastive losses read them: query, positive, then negatives, of texts or of
            ``{"text": ..., "instruction": ...}``; columns of labels aside. Or several such datasets by name.
        where: What the dataset is called in messages.

    Raises:
        ValueError: If there are fewer than two columns, a row has no text, or a negative equals one of the others.

    Example:
        >>> check_pairs(Dataset.from_dict({"query": ["a cat"], "positive": ["cats purr"], "negative": ["dogs bark"]}))
    """
    if isinstance(dataset, DatasetDict):
        for name, one in dataset.items():
            check_pairs(one, str(name))
        return
    names = [name for name in dataset.column_names if name not in (*DEFAULT_LABEL_COLUMNS, "dataset_name")]
    if len(names) < 2:
        raise ValueError(f"The columns of {where} are {dataset.column_names}; a query and a positive are needed.")
    for start, batch in _batches(dataset.select_columns(names), where):
        for at in range(len(batch[names[0]])):
            number = start + at
            texts = [as_text(_plain(batch[name][at]), name, where, number) for name in names]
            refuse_equal_negative(dict(zip(names[:2], texts[:2], strict=True)), texts[2:], where, number)


def _batches(dataset: Dataset, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows' first number and columns, a batch at a time, behind a bar where ``datasets`` shows them."""
    with tqdm(total=len(dataset), desc=f"Checking {where}", unit=" rows", leave=False) as bar:
        for start in range(0, len(dataset), BATCH):
            batch = dataset[start : start + BATCH]
            yield start, batch
            bar.update(BATCH)


def _plain(value: Any) -> Any:
    return value["text"] if isinstance(value, dict) and "text" in value else value
