"""Read texts from a dataset on the Hub or on disk, streamed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from st_llm2vec.corpus.line_files import require_columns
from st_llm2vec.corpus.rows import Plan, Row, Start, row_id

SAVED_TO_DISK = ("state.json", "dataset_dict.json")


class DatasetSource:
    """A split of a dataset.

    Args:
        dataset: A name on the Hub, a dataset's folder, or one written by ``save_to_disk``.
        config: Its configuration.
        split: Its split.
        revision: Branch, tag or commit on the Hub.
        column: The column of texts.
        id_column: The column of ids.

    Raises:
        ValueError: If it cannot be opened, or lacks a column.
    """

    def __init__(
        self,
        dataset: str,
        config: str | None,
        split: str,
        revision: str | None,
        column: str,
        id_column: str | None,
    ) -> None:
        self.dataset = dataset
        self.config = config
        self.split = split
        self.revision = revision
        self.column = column
        self.id_column = id_column
        self.named_ids = id_column is not None
        self.name = f"{dataset} ({split})"
        self.data = self._open()
        require_columns(self.name, self.data.column_names or (), column, id_column)
        self.data = self.data.select_columns([column, *([id_column] if id_column and id_column != column else [])])

    def _open(self) -> Any:
        import datasets

        folder = Path(self.dataset)
        try:
            if any((folder / name).is_file() for name in SAVED_TO_DISK):
                data = datasets.load_from_disk(str(folder))
                return data[self.split] if isinstance(data, dict) else data
            return datasets.load_dataset(
                self.dataset, self.config, split=self.split, revision=self.revision, streaming=True
            )
        except KeyError as error:
            raise ValueError(f"{self.dataset} has no split {self.split!r}; it has {', '.join(data)}.") from error
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"The dataset {self.dataset} could not be opened: {error}") from error

    def identity(self) -> dict[str, Any]:
        """Its name and revision, and the files of one on disk with their sizes."""
        folder = Path(self.dataset)
        files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else []
        return {
            "kind": "dataset",
            "dataset": folder.name if files else self.dataset,
            "files": [[str(file.relative_to(folder)), file.stat().st_size] for file in files],
            "config": self.config,
            "split": self.split,
            "revision": self.revision,
            "column": self.column,
            "id_column": self.id_column,
        }

    def plan(self, size: int) -> Plan:
        """The number of rows where the dataset says it; its rows are found by skipping."""
        if hasattr(self.data, "__len__"):
            return Plan(len(self.data), None)
        splits = self.data.info.splits or {}
        known = splits[self.split].num_examples if self.split in splits else None
        return Plan(known or None, None)

    def rows(self, start: Start) -> Iterator[Row]:
        """The rows from there on."""
        number = start.row
        for batch in self.data.skip(start.row).iter(batch_size=1024):
            ids = batch[self.id_column] if self.id_column else [None] * len(batch[self.column])
            for value, identifier in zip(batch[self.column], ids, strict=True):
                found, problem = row_id(number, self.named_ids, identifier)
                yield Row(number, found, value, problem)
                number += 1
