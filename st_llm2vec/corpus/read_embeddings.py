"""Read what a job wrote."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from st_llm2vec.corpus.job_folder import JobFolder
from st_llm2vec.corpus.shard_files import read_shard


def read_embeddings(path: str | os.PathLike[str]) -> Iterator[tuple[list[Any], torch.Tensor]]:
    """Read the ids and vectors of a finished job, a shard at a time, in the order of the corpus.

    Args:
        path: The job's folder.

    Yields:
        Ids, and their vectors of shape ``(rows, width)``.

    Raises:
        ValueError: If the folder is no job's, or the job is not complete.
    """
    folder = JobFolder(Path(path), "")
    job = folder.read_job()
    if "summary" not in job:
        raise ValueError(f"The job in {path} is not complete; run the same command again to finish it.")
    folder.file_format = job["job"]["settings"]["file_format"]
    for shard in range(job["summary"]["shards"]):
        yield read_shard(folder.shard_file(shard))
