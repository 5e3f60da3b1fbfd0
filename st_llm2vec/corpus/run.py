"""``embed_corpus``: a corpus of any size on one machine, resumable to the shard."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from st_llm2vec.corpus.devices import open_encoders
from st_llm2vec.corpus.job_folder import JobFolder
from st_llm2vec.corpus.progress import Meter, Progress
from st_llm2vec.corpus.rows import Plan, Row, Source, judge
from st_llm2vec.corpus.settings import CALIBRATED, EmbeddingSettings
from st_llm2vec.corpus.shard_encoder import ShardRows
from st_llm2vec.corpus.shard_files import ShardReport


def embed_corpus(
    source: Source,
    output: str | os.PathLike[str],
    settings: EmbeddingSettings,
    *,
    devices: Sequence[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Embed a corpus into a folder of shards.

    Rows are streamed: memory holds the encoder and a shard, whatever the size. A shard is written all or nothing, and
    the same call goes on where another one was stopped, however it was stopped; the result is the same.

    Args:
        source: The corpus, from ``open_source``.
        output: The folder: a new one, or that of the same job.
        settings: How texts become vectors.
        devices: Where to encode, one process for each; all GPUs if not given.
        on_progress: Called as texts are done.

    Returns:
        The numbers of rows, embedded, rejected and truncated texts, tokens and shards.

    Raises:
        ValueError: If the folder is another job's, or something that was asked for cannot be.
        OSError: If there is no space left; what is there is whole.
    """
    folder = JobFolder(Path(output), settings.file_format)
    with folder.locked(), open_encoders(settings, Path(output), devices) as encoders:
        begin_job(folder, source, settings, encoders.describe())
        plan = folder.plan(source, settings.shard_rows)
        if settings.precision in CALIBRATED and folder.ranges() is None:
            folder.write_ranges(encoders.calibrate(calibration_texts(source, plan, settings)))
        reports = folder.finished()
        meter = Meter(plan.rows, sum(report.rows for report in reports.values()), on_progress)
        shards = pending_shards(source, plan, reports, settings.shard_rows)
        for report in encoders.process(shards, meter.advance):
            reports[report.shard] = report
        if not sum(report.rows for report in reports.values()):
            raise ValueError(f"{source.name} holds no rows.")
        return folder.complete(reports)


def begin_job(folder: JobFolder, source: Source, settings: EmbeddingSettings, encoder: dict[str, Any]) -> None:
    """Write what the job is into its folder, or make sure that the folder is of the same one.

    Args:
        folder: The job's folder.
        source: The corpus.
        settings: How texts become vectors.
        encoder: What the loaded encoder says of itself.
    """
    job = {"corpus": source.identity(), "settings": settings.identity(), "encoder": encoder}
    folder.adopt({"encoder": settings.encoder, "revision": settings.revision, "job": job})


def calibration_texts(source: Source, plan: Plan, settings: EmbeddingSettings) -> list[str]:
    """The first good texts."""
    rows = source.rows(plan.start(0, settings.shard_rows))
    good = (row.value for row in rows if judge(row, settings.max_chars) is None)
    return list(itertools.islice(good, settings.calibration_rows))


def pending_shards(source: Source, plan: Plan, done: dict[int, ShardReport], size: int) -> Iterator[ShardRows]:
    """The shards that are not there yet, in order, each with its rows.

    Args:
        source: The corpus.
        plan: Where its shards begin.
        done: The shards that are there.
        size: Rows in a shard.

    Yields:
        A shard's number and its rows.
    """
    done = dict(done)
    rows: Iterator[Row] | None = None
    for shard in itertools.count():
        if plan.rows is not None and shard * size >= plan.rows:
            return
        if shard in done:
            rows = None
            if done[shard].rows < size:
                return
            continue
        if rows is None:
            rows = source.rows(plan.start(shard, size))
        read = list(itertools.islice(rows, size))
        if not read:
            return
        yield ShardRows(shard, read, source.named_ids)
