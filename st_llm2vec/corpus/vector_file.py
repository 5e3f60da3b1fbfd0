"""All vectors of a corpus in one file, all or nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as arrow
from datasets import Dataset
from pyarrow import parquet
from safetensors.numpy import save_file

from st_llm2vec.folder.disk_errors import disk_errors
from st_llm2vec.folder.staging import staged

AT_ONCE = 4096


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
def vector_file(
    path: Path, rows: int, dimension: int, columns: Dataset | None
) -> Iterator[Callable[[np.ndarray], object]]:
    """Put vectors on the disk as they come, and write them in the file's format when all are there.

    Args:
        path: A ``.npy`` file; a ``.safetensors`` file, of the tensor ``embeddings``; or a ``.parquet`` file, of the columns
            of the corpus and ``embedding``. What was there stays until all is written.
        rows: How many vectors there are.
        dimension: Their width.
        columns: The corpus, for Parquet.

    Yields:
        A function that takes the next vectors, of shape ``(some rows, dimension)``; they are kept in float32.

    Raises:
        ValueError: If the corpus has a column ``embedding`` already.
        OSError: If the disk is full, or the path may not be written.
    """
    if columns is not None and "embedding" in columns.column_names:
        raise ValueError("The corpus already has a column 'embedding'; rename it, or write .npy or .safetensors.")
    with disk_errors(path), staged(path) as staging:
        filled, written = staging / "filled.npy", staging / "written"
        with filled.open("wb") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (rows, dimension)}
            np.lib.format.write_array_header_1_0(file, header)
            yield lambda vectors: file.write(np.ascontiguousarray(vectors, "<f4").data)
        WRITERS[path.suffix.lower()](filled, written, columns)
        os.replace(written, path)


def _write_npy(filled: Path, target: Path, columns: Dataset | None) -> None:
    os.replace(filled, target)


def _write_safetensors(filled: Path, target: Path, columns: Dataset | None) -> None:
    save_file({"embeddings": np.load(filled)}, target)


def _write_parquet(filled: Path, target: Path, columns: Dataset | None) -> None:
    assert columns is not None
    with filled.open("rb") as file:
        np.lib.format.read_magic(file)
        (_, width), _, _ = np.lib.format.read_array_header_1_0(file)
        field = arrow.field("embedding", arrow.list_(arrow.float32(), width))
        with parquet.ParquetWriter(target, columns.features.arrow_schema.append(field)) as writer:
            for start in range(0, len(columns), AT_ONCE):
                table = columns.with_format("arrow")[start : start + AT_ONCE]
                flat = arrow.array(np.fromfile(file, "<f4", len(table) * width))
                table = table.append_column(field, arrow.FixedSizeListArray.from_arrays(flat, width))
                writer.write_table(table.cast(writer.schema))


WRITERS: dict[str, Callable[[Path, Path, Dataset | None], None]] = {
    ".npy": _write_npy,
    ".safetensors": _write_safetensors,
    ".parquet": _write_parquet,
}
