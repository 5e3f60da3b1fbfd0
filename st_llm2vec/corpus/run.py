"""``embed_corpus``: a corpus of any size on one machine, resumable to the shard."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path
from typing import Any

from st_llm2vec.corpus.corpus import Corpus, judge
from st_llm2vec.corpus.devices import open_encoders
from st_llm2vec.corpus.job_folder import JobFolder
from st_llm2vec.corpus.progress import Meter, Progress
from st_llm2vec.corpus.settings import CALIBRATED, EmbeddingSettings
from st_llm2vec.corpus.shard_encoder import ShardRows


def embed_corpus(
    source: Corpus,
    output: str | os.PathLike[str],
    settings: EmbeddingSettings,
    *,
    devices: Sequence[str] | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Embed a corpus into a folder of shards.

    Memory holds the encoder and a shard, whatever the size. A shard is written all or nothing, and
    the same call goes on where another one was stopped, however it was stopped; the result is the same.

    Args:
        source: The corpus, from ``open_corpus``.
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
        if settings.precision in CALIBRATED and folder.ranges() is None:
            folder.write_ranges(encoders.calibrate(calibration_texts(source, settings)))
        reports = folder.finished()
        meter = Meter(len(source), sum(report.rows for report in reports.values()), on_progress)
        shards = pending_shards(source, reports, settings.shard_rows)
        for report in encoders.process(shards, meter.advance):
            reports[report.shard] = report
        return folder.complete(reports)


def begin_job(folder: JobFolder, source: Corpus, settings: EmbeddingSettings, encoder: dict[str, Any]) -> None:
    """Write what the job is into its folder, or make sure that the folder is of the same one.

    Args:
        folder: The job's folder.
        source: The corpus.
        settings: How texts become vectors.
        encoder: What the loaded encoder says of itself.
    """
    job = {"corpus": source.identity, "settings": settings.identity(), "encoder": encoder}
    folder.adopt({"encoder": settings.encoder, "revision": settings.revision, "job": job})


def calibration_texts(source: Corpus, settings: EmbeddingSettings) -> list[str]:
    """The first good texts."""
    size = settings.shard_rows
    rows = (row for start in range(0, len(source), size) for row in source.rows(start, start + size))
    good = (row.value for row in rows if judge(row, settings.max_chars) is None)
    return list(itertools.islice(good, settings.calibration_rows))


def pending_shards(source: Corpus, done: Container[int], size: int) -> Iterator[ShardRows]:
    """The shards that are not there yet, in order, each with its rows.

    Args:
        source: The corpus.
        done: The shards that are there.
        size: Rows in a shard.

    Yields:
        A shard's number and its rows.
    """
    for shard in range(-(-len(source) // size)):
        if shard not in done:
            yield ShardRows(shard, list(source.rows(shard * size, (shard + 1) * size)), source.named_ids)
