"""Write vectors to files, a chunk at a time, all or nothing."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from st_llm2vec.corpus.texts import Chunk, Corpus, arrow_library


class Writer(Protocol):
    """Takes vectors chunk by chunk."""

    def write(self, chunk: Chunk, vectors: np.ndarray) -> None:
        """Add the vectors ``(rows, dimension)`` of a chunk."""

    def close(self, complete: bool) -> None:
        """Finish the file, or only let go of it."""


class NpyWriter:
    """A float32 array in NumPy's format, written as it comes."""

    def __init__(self, path: Path, corpus: Corpus, dimension: int) -> None:
        self.dimension = dimension
        self.rows = 0
        self.file = path.open("wb")
        self._header()

    def write(self, chunk: Chunk, vectors: np.ndarray) -> None:
        """Add the vectors of a chunk."""
        self.file.write(np.ascontiguousarray(vectors, dtype="<f4").data)
        self.rows += len(vectors)

    def close(self, complete: bool) -> None:
        """Write the number of rows into the header, whose length NumPy keeps the same for any number."""
        if complete:
            self.file.seek(0)
            self._header()
        self.file.close()

    def _header(self) -> None:
        header = {"descr": "<f4", "fortran_order": False, "shape": (self.rows, self.dimension)}
        np.lib.format.write_array_header_1_0(self.file, header)


class SafetensorsWriter:
    """One float32 tensor, ``embeddings``; it is held in memory until the end."""

    def __init__(self, path: Path, corpus: Corpus, dimension: int) -> None:
        self.path = path
        self.parts = [np.empty((0, dimension), dtype=np.float32)]

    def write(self, chunk: Chunk, vectors: np.ndarray) -> None:
        """Keep the vectors of a chunk."""
        self.parts.append(np.asarray(vectors, dtype=np.float32))

    def close(self, complete: bool) -> None:
        """Write the tensor."""
        if complete:
            importlib.import_module("safetensors.numpy").save_file(
                {"embeddings": np.concatenate(self.parts)}, self.path
            )


class ParquetWriter:
    """The corpus's own columns and one more, ``embedding``."""

    def __init__(self, path: Path, corpus: Corpus, dimension: int) -> None:
        self.arrow = arrow_library()
        self.columns = corpus.schema()
        if "embedding" in self.columns.names:
            raise ValueError(
                f"{corpus.name} already has a column 'embedding'; rename it, or write .npy or .safetensors."
            )
        self.dimension = dimension
        self.field = self.arrow.field("embedding", self.arrow.list_(self.arrow.float32(), dimension))
        self.writer = importlib.import_module("pyarrow.parquet").ParquetWriter(path, self.columns.append(self.field))

    def write(self, chunk: Chunk, vectors: np.ndarray) -> None:
        """Add the rows of a chunk with their vectors."""
        table = chunk.columns
        if isinstance(table, list):
            table = self.arrow.RecordBatch.from_pylist(table, schema=self.columns)
        flat = self.arrow.array(np.asarray(vectors, dtype=np.float32).reshape(-1))
        embedding = self.arrow.FixedSizeListArray.from_arrays(flat, self.dimension)
        table = self.arrow.Table.from_batches([table]).append_column(self.field, embedding)
        self.writer.write_table(table.cast(self.writer.schema))

    def close(self, complete: bool) -> None:
        """Write the footer."""
        self.writer.close()


WRITERS: dict[str, Callable[[Path, Corpus, int], Writer]] = {
    ".npy": NpyWriter,
    ".safetensors": SafetensorsWriter,
    ".parquet": ParquetWriter,
}


def check_output(path: Path) -> None:
    """Raise if vectors cannot be written under this name.

    Raises:
        ValueError: If the extension is unknown or the path is a folder.
    """
    if path.suffix.lower() not in WRITERS:
        found = f"ends in {path.suffix}" if path.suffix else "has no extension"
        raise ValueError(f"{path} {found}; vectors are written to {', '.join(WRITERS)}. Name the output accordingly.")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give the name of a file.")


@contextmanager
def open_output(path: Path, corpus: Corpus, dimension: int) -> Iterator[Writer]:
    """Write beside the target and move into place at the end, so that a failure leaves what was there.

    Args:
        path: The file to write.
        corpus: Where the rows come from.
        dimension: Width of the vectors.

    Yields:
        A writer.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    writer = None
    complete = False
    try:
        writer = WRITERS[path.suffix.lower()](part, corpus, dimension)
        yield writer
        complete = True
    finally:
        if writer is not None:
            writer.close(complete)
        if complete:
            os.replace(part, path)
        part.unlink(missing_ok=True)
