"""One shard of vectors as a file: Parquet or safetensors, written all or nothing."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as arrow
import torch
from pyarrow import parquet
from safetensors import safe_open
from safetensors.torch import save

METADATA_KEY = "st_llm2vec_shard"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass(frozen=True)
class ShardReport:
    """What became of a shard's rows; it is stored in the shard.

    Args:
        shard: The shard's number.
        first_row: Number of its first row in the corpus.
        rows: Rows that were read.
        embedded: Rows that have a vector.
        rejected: Rows that have none.
        truncated: Rows whose text was longer than the encoder reads.
        tokens: Tokens that the encoder read, template and instruction included.
    """

    shard: int
    first_row: int
    rows: int
    embedded: int
    rejected: int
    truncated: int
    tokens: int


def write_shard(path: Path, ids: list[Any], vectors: torch.Tensor, report: ShardReport, named_ids: bool) -> None:
    """Write ids and vectors.

    Args:
        path: A ``.parquet`` or ``.safetensors`` file.
        ids: All integers, or all strings.
        vectors: Of shape ``(rows, width)``.
        report: What is stored beside them.
        named_ids: Whether the ids are strings.
    """
    writer = _write_parquet if path.suffix == ".parquet" else _write_safetensors
    metadata = {METADATA_KEY: json.dumps(asdict(report))}
    write_atomically(path, lambda part: writer(part, ids, vectors, metadata, named_ids))


def read_shard(path: Path) -> tuple[list[Any], torch.Tensor]:
    """Read the ids and the vectors ``(rows, width)`` of a shard."""
    if path.suffix == ".parquet":
        table = parquet.read_table(path)
        column = table.column("embedding").combine_chunks()
        flat = np.array(column.flatten().to_numpy(zero_copy_only=False))
        return table.column("id").to_pylist(), torch.from_numpy(flat.reshape(len(table), column.type.list_size))
    with safe_open(path, framework="pt") as file:
        named = file.metadata().get("ids")
        ids = json.loads(named) if named is not None else file.get_tensor("ids").tolist()
        return ids, file.get_tensor("embeddings")


def read_report(path: Path) -> ShardReport:
    """Read what is stored beside a shard's vectors, without reading these.

    Raises:
        ValueError: If it is not a shard.
    """
    try:
        if path.suffix == ".parquet":
            text = (parquet.read_schema(path).metadata or {})[METADATA_KEY.encode()].decode()
        else:
            with safe_open(path, framework="pt") as file:
                text = (file.metadata() or {})[METADATA_KEY]
        return ShardReport(**json.loads(text))
    except Exception as error:
        raise ValueError(
            f"{path} is not a whole shard of embeddings ({error}). Delete it, and run the job again to make it anew."
        ) from error


def write_atomically(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside a file, force it to the disk, and move it into place.

    Args:
        path: The file.
        write: Writes to the path it is given.

    Raises:
        OSError: If it could not be written; what was there is still there.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        write(part)
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
        _sync_folder(path.parent)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise OSError(
                f"There is no space left for {path} ({os.strerror(error.errno)}). What is there is complete; make "
                "space and run the same command again, and it goes on from there."
            ) from error
        raise
    finally:
        part.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_parquet(
    path: Path, ids: list[Any], vectors: torch.Tensor, metadata: dict[str, str], named_ids: bool
) -> None:
    width = vectors.shape[1]
    values = arrow.array(vectors.numpy().reshape(-1))
    id_type = arrow.string() if named_ids else arrow.int64()
    fields = [("id", id_type), ("embedding", arrow.list_(values.type, width))]
    schema = arrow.schema(fields, metadata=metadata)
    columns = [arrow.array(ids, id_type), arrow.FixedSizeListArray.from_arrays(values, width)]
    table = arrow.table(columns, schema=schema)
    parquet.write_table(table, path, compression="none", use_dictionary=False, write_statistics=["id"])


def _write_safetensors(
    path: Path, ids: list[Any], vectors: torch.Tensor, metadata: dict[str, str], named_ids: bool
) -> None:
    tensors = {"embeddings": vectors.contiguous()}
    if named_ids:
        metadata = {**metadata, "ids": json.dumps(ids, ensure_ascii=False)}
    else:
        tensors["ids"] = torch.tensor(ids, dtype=torch.int64)
    path.write_bytes(save(tensors, metadata=metadata))
