"""What must hold of a dataset before any training time is spent on it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

from datasets import Dataset, DatasetDict
from datasets.utils import tqdm
from sentence_transformers.base.data_collator import DEFAULT_LABEL_COLUMNS
from transformers import PreTrainedTokenizerBase

from st_llm2vec.data.lines import row_in
from st_llm2vec.data.rows import as_text, refuse_equal_negative, require_columns

logger = logging.getLogger(__name__)

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
        >>> from transformers import AutoTokenizer; from st_llm2vec import decoder_path
        >>> dataset = Dataset.from_dict({"text": ["A violin is carved from spruce.", "Rain fell all night."]})
        >>> check_texts(dataset, "text", AutoTokenizer.from_pretrained(decoder_path()))
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
            place = row_in(where, start + short[0])
            first = f"{place[:1].lower()}{place[1:]} with {texts[short[0]][:40]!r}"
        count += len(short)
    if count == len(dataset) or (count and every):
        share = f"All {count}" if count == len(dataset) else f"{count} of the {len(dataset)}"
        raise ValueError(
            f"{share} texts in {column!r} of {where} have fewer than {min_tokens} tokens, beginning with {first}. Leave them "
            "out, or give longer ones."
        )


def require_texts(dataset: Dataset, columns: Sequence[str], where: str) -> None:
    """Raise unless the columns are there and a row has a text in all of them. Reads rows until there is one.

    Args:
        dataset: The dataset.
        columns: The columns with the texts.
        where: What the dataset is called in messages.

    Raises:
        ValueError: If there is no such column, or its texts are all blank.

    Example:
        >>> require_texts(Dataset.from_dict({"text": ["", "Rain fell."]}), ["text"], "texts.txt")
    """
    require_columns(dataset, columns, where)
    for _, batch in _batches(dataset.select_columns(list(columns)), where):
        if any(
            all(text is not None and str(text).strip() for text in row) for row in zip(*batch.values(), strict=True)
        ):
            return
    raise ValueError(
        f"{where} has {len(dataset)} rows, and all are blank in {' or '.join(map(repr, columns))}: there is nothing to learn "
        "from. Give a text in each row, which in a text file is a line."
    )


def check_pairs(dataset: Dataset | DatasetDict, where: str = "the dataset") -> None:
    """Raise if a hard negative equals its row's positive or query, whitespace around them aside. Reads the whole dataset.

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
    names = _columns_of_texts(dataset)
    if len(names) < 2:
        raise ValueError(f"The columns of {where} are {dataset.column_names}; a query and a positive are needed.")
    for start, batch in _batches(dataset.select_columns(names), where):
        for at in range(len(batch[names[0]])):
            number = start + at
            texts = [as_text(_plain(batch[name][at]), name, where, number) for name in names]
            refuse_equal_negative(dict(zip(names[:2], texts[:2], strict=True)), texts[2:], where, number)


def check_contrast(dataset: Dataset | DatasetDict, rows: int, where: str = "the dataset") -> None:
    """Raise if no batch could hold two rows to tell apart; warn if the dataset does not fill one.

    A text's loss comes from the other rows of its batch, and none of them may repeat it. Reads as many rows as a batch
    needs.

    Args:
        dataset: Texts, or pairs with or without hard negatives; or several such datasets by name. Hard negatives are
            something to tell apart in every row, so with them nothing raises.
        rows: Rows of a batch, of all processes whose rows are compared.
        where: What the dataset is called in messages.

    Raises:
        ValueError: If a batch holds one row, or all rows share a text.

    Example:
        >>> check_contrast(Dataset.from_dict({"text": ["A violin is carved from spruce.", "Rain fell."]}), rows=2)
    """
    if isinstance(dataset, DatasetDict):
        for name, one in dataset.items():
            check_contrast(one, rows, str(name))
        return
    names = _columns_of_texts(dataset)
    hard = len(names) > 2
    if not len(dataset) or (hard and rows < 2):
        return
    if rows < 2:
        raise ValueError(
            f"A batch holds one row of {where}, and rows are told from the others of their batch: there is nothing to learn. "
            "Raise per_device_train_batch_size (--batch-size)."
        )
    few: dict[str, int] = {}
    for name in names:
        found = _different_texts(dataset, name, rows, where)
        if len(found) < 2 and not hard:
            raise ValueError(
                f"All {len(dataset)} rows of {where} have the same text in {name!r}, {next(iter(found))[:40]!r}, and a text "
                "is told from the others of its batch: there is nothing to learn. Give more texts."
                if len(dataset) > 1
                else f"There is one row in {where}, and a text is told from the others of its batch: there is nothing to "
                "learn. Give more rows."
            )
        if len(found) < rows:
            few[name] = len(found)
    if few:
        logger.warning(
            "%s has few different texts (%s), fewer than the %d rows of a batch, and rows with a text in common are never in "
            "one batch: every batch is smaller, there is less to tell apart, and beside other sources rows are left out.",
            f"The {where[4:]}" if where.startswith("the ") else where,
            ", ".join(f"{count:,} in {name!r}" for name, count in few.items()),
            rows,
        )


def _different_texts(dataset: Dataset, column: str, enough: int, where: str) -> set[str]:
    """The different texts of a column, read until there are enough."""
    found: set[str] = set()
    for _, batch in _batches(dataset.select_columns([column]), where):
        found.update(_plain(value) for value in batch[column])
        if len(found) >= enough:
            break
    return found


def _columns_of_texts(dataset: Dataset) -> list[str]:
    return [name for name in dataset.column_names if name not in (*DEFAULT_LABEL_COLUMNS, "dataset_name")]


def _batches(dataset: Dataset, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows' first number and columns, a batch at a time, behind a bar where ``datasets`` shows them."""
    with tqdm(total=len(dataset), desc=f"Checking {where}", unit=" rows", leave=False) as bar:
        for start in range(0, len(dataset), BATCH):
            batch = dataset[start : start + BATCH]
            yield start, batch
            bar.update(BATCH)


def _plain(value: Any) -> Any:
    return value["text"] if isinstance(value, dict) and "text" in value else value
