"""The folder of a job: what it is, which shards are done, and what was left out.

embeddings.json          what the job is; it is complete when "summary" is in it
calibration.safetensors  the ranges of int8 and uint8 vectors
shards/00000.parquet     ids and vectors; a shard that is there is whole
rejected/00000.jsonl     the rows of that shard that were left out or truncated, and why
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from st_llm2vec.corpus.shard_files import ShardReport, read_report, write_atomically, write_shard
from st_llm2vec.folder.held import held

FORMAT_VERSION = 1


class JobFolder:
    """The folder of a job.

    Args:
        path: The folder.
        file_format: ``"parquet"`` or ``"safetensors"``.
    """

    def __init__(self, path: Path, file_format: str) -> None:
        self.path = path
        self.file_format = file_format

    @property
    def job_file(self) -> Path:
        """What the job is."""
        return self.path / "embeddings.json"

    def shard_file(self, shard: int) -> Path:
        """Where a shard's vectors are."""
        return self.path / "shards" / f"{shard:05d}.{self.file_format}"

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process, and clear away what a killed one left behind.

        Raises:
            ValueError: If the path is a file, a folder of something else, or another process has it.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; give a folder for the embeddings.")
        if self.path.is_dir() and not self.job_file.is_file():
            strange = sorted(file.name for file in self.path.iterdir() if not file.name.startswith("."))
            if strange:
                raise ValueError(f"{self.path} holds {strange[0]} and is no job's folder; give a new or an empty one.")
        self.path.mkdir(parents=True, exist_ok=True)
        with held(self.path, "writing to"):
            for part in self.path.rglob(".*.part"):
                part.unlink()
            yield

    def adopt(self, job: dict[str, Any]) -> None:
        """Begin the job, or make sure that the folder is of the same one.

        Raises:
            ValueError: If the folder is another job's.
        """
        if not self.job_file.is_file():
            self._write_json(self.job_file, {"format_version": FORMAT_VERSION, **job})
        for name in ("shards", "rejected"):
            (self.path / name).mkdir(exist_ok=True)
        known = self.read_job()
        if known["job"] != job["job"]:
            raise ValueError(
                f"{self.path} holds the embeddings of another job: {_difference(known['job'], job['job'])}. Give the "
                "same options and the same corpus to go on with it, or another folder to begin a new one."
            )

    def read_job(self) -> dict[str, Any]:
        """What the job is.

        Raises:
            ValueError: If it cannot be read.
        """
        try:
            return json.loads(self.job_file.read_text(encoding="utf-8"))
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"{self.job_file} cannot be read ({error}), so {self.path} is no job's folder.") from error

    def finished(self) -> dict[int, ShardReport]:
        """The shards that are there."""
        files = sorted((self.path / "shards").glob(f"*.{self.file_format}"))
        return {int(file.stem): read_report(file) for file in files}

    def ranges(self) -> np.ndarray | None:
        """The ranges ``(2, dimension)`` that int8 and uint8 vectors were made with, where they are known."""
        file = self.path / "calibration.safetensors"
        return load_file(file)["ranges"].numpy() if file.is_file() else None

    def write_ranges(self, ranges: np.ndarray) -> None:
        """Keep the ranges, before any vector is made with them."""
        data = save({"ranges": torch.tensor(ranges, dtype=torch.float32)})
        write_atomically(self.path / "calibration.safetensors", lambda part: part.write_bytes(data))

    def write(
        self,
        report: ShardReport,
        ids: list[Any],
        vectors: torch.Tensor,
        named_ids: bool,
        rejected: list[dict[str, Any]],
    ) -> None:
        """Write a shard: first what was left out, then the vectors, whose file says that the shard is done."""
        if rejected:
            lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rejected)
            data = lines.encode("utf-8", "backslashreplace")
            file = self.path / "rejected" / f"{report.shard:05d}.jsonl"
            write_atomically(file, lambda part: part.write_bytes(data))
        write_shard(self.shard_file(report.shard), ids, vectors, report, named_ids)

    def complete(self, reports: dict[int, ShardReport]) -> dict[str, Any]:
        """Write the sums over all shards into the job's file, which says that the job is complete.

        Raises:
            ValueError: If a shard is missing.
        """
        missing = sorted(set(range(len(reports))) - set(reports))
        if missing:
            raise ValueError(f"Shard {missing[0]} of {self.path} is missing; run the same command again.")
        fields = ("rows", "embedded", "rejected", "truncated", "tokens")
        summary = {name: sum(getattr(report, name) for report in reports.values()) for name in fields}
        summary["shards"] = len(reports)
        self._write_json(self.job_file, {**self.read_job(), "summary": summary})
        return summary

    @staticmethod
    def _write_json(path: Path, data: Any) -> None:
        text = json.dumps(data, ensure_ascii=False, indent=2) + "\n"
        write_atomically(path, lambda part: part.write_text(text, encoding="utf-8"))


def _difference(known: dict[str, Any], given: dict[str, Any], prefix: str = "") -> str:
    """The first thing in which two jobs differ, in words."""
    for name in [*known, *given]:
        before, now = known.get(name), given.get(name)
        if before != now:
            if isinstance(before, dict) and isinstance(now, dict):
                return _difference(before, now, f"{prefix}{name}.")
            return f"its {prefix}{name} is {_short(before)}, and {_short(now)} was given"
    return "it differs"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:79]}…"
