"""``embed_corpus_on_ray``: the job of ``st-llm2vec embed``, its shards shared out among the actors of a Ray cluster."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from st_llm2vec.corpus import EmbeddingSettings, Progress
from st_llm2vec.corpus.corpus import Corpus
from st_llm2vec.corpus.job_folder import JobFolder
from st_llm2vec.corpus.progress import Meter
from st_llm2vec.corpus.run import begin_job, calibration_texts
from st_llm2vec.corpus.settings import CALIBRATED
from st_llm2vec.corpus.shard_encoder import ShardEncoder, ShardRows
from st_llm2vec.corpus.shard_files import ShardReport, read_report

MOST_BLOCKS = 20_000


def embed_corpus_on_ray(
    source: Corpus,
    output: str | os.PathLike[str],
    settings: EmbeddingSettings,
    *,
    actors: int | tuple[int, int] = 1,
    gpus_per_actor: float = 0,
    cpus_per_actor: float = 1,
    on_progress: Callable[[Progress], None] | None = None,
) -> dict[str, Any]:
    """Embed a corpus on a Ray cluster into the folder that ``st_llm2vec.corpus.embed_corpus`` would write.

    Each actor holds the encoder. It reads a shard's rows from the corpus, embeds them, and writes the shard, all or
    nothing; Ray starts an actor that dies again and gives its shard to another one. The same call goes on where
    another one was stopped, be it on the cluster or on one machine.

    Corpus, encoder and output are paths that every node sees, such as a shared file system, or names on the Hub.

    Args:
        source: The corpus, from ``st_llm2vec.corpus.open_corpus``.
        output: The folder: a new one, or that of the same job.
        settings: How texts become vectors.
        actors: How many actors, or the smallest and the largest number of them.
        gpus_per_actor: GPUs for each actor; 1 on a cluster of GPUs.
        cpus_per_actor: CPU cores for each actor.
        on_progress: Called as shards are done.

    Returns:
        The numbers of rows, embedded, rejected and truncated texts, tokens and shards.

    Raises:
        ValueError: If the folder is another job's, or something that was asked for cannot be.
        OSError: If a shard could not be written.
    """
    if settings.dtype == "auto":
        raise ValueError('dtype="auto" may mean different types on the nodes of a cluster; name one, e.g. "bfloat16".')
    path = Path(output).absolute()
    if Path(settings.encoder).is_dir():
        settings = replace(settings, encoder=str(Path(settings.encoder).absolute()))
    folder = JobFolder(path, settings.file_format)
    resources = {"num_gpus": gpus_per_actor, "num_cpus": cpus_per_actor}
    with folder.locked():
        _ask(resources, _begin, path, source, settings)
        if settings.precision in CALIBRATED and folder.ranges() is None:
            folder.write_ranges(_ask(resources, _calibrate, path, source, settings))
        reports = folder.finished()
        meter = Meter(len(source), sum(report.rows for report in reports.values()), on_progress)
        missing = [shard for shard in range(-(-len(source) // settings.shard_rows)) if shard not in reports]
        for report in _shared_out(missing, path, source, settings, actors, resources):
            reports[report.shard] = report
            meter.advance(report.rows, report.tokens)
        return folder.complete(reports)


class EmbedShards:
    """An actor of the pool: the encoder, and what it needs to find a shard's rows.

    Args:
        source: The corpus.
        output: The job's folder.
        settings: How texts become vectors.
    """

    def __init__(self, source: Corpus, output: Path, settings: EmbeddingSettings) -> None:
        self.source = source
        self.settings = settings
        self.folder = JobFolder(output, settings.file_format)
        self.encoder = ShardEncoder(settings, output)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, list[Any]]:
        """Embed the shards of a batch; one that an actor finished before it died is not made again."""
        reports = []
        size = self.settings.shard_rows
        for shard in batch["shard"].tolist():
            written = self.folder.shard_file(shard)
            if written.is_file():
                reports.append(read_report(written))
                continue
            rows = list(self.source.rows(shard * size, (shard + 1) * size))
            reports.append(self.encoder.process(ShardRows(shard, rows, self.source.named_ids)))
        return {name: [getattr(report, name) for report in reports] for name in ShardReport.__dataclass_fields__}


def _shared_out(
    missing: list[int],
    output: Path,
    source: Corpus,
    settings: EmbeddingSettings,
    actors: int | tuple[int, int],
    resources: dict[str, float],
) -> Iterator[ShardReport]:
    """Let the actors embed the shards that are missing; yield what became of each."""
    if not missing:
        return
    numbers = [{"shard": shard} for shard in missing]
    shards = ray.data.from_items(numbers, override_num_blocks=min(len(numbers), MOST_BLOCKS))
    done = shards.map_batches(
        EmbedShards,
        fn_constructor_args=(source, output, settings),
        batch_size=1,
        concurrency=actors,
        **resources,
    )
    try:
        for row in done.iter_rows():
            yield ShardReport(**row)
    except RayError as error:
        raise _reason(error) from error


# On the cluster -----------------------------------------------------------------------------------------


def _begin(output: Path, source: Corpus, settings: EmbeddingSettings) -> None:
    folder = JobFolder(output, settings.file_format)
    begin_job(folder, source, settings, ShardEncoder(settings, output).describe())


def _calibrate(output: Path, source: Corpus, settings: EmbeddingSettings) -> np.ndarray:
    return ShardEncoder(settings, output).calibrate(calibration_texts(source, settings))


def _ask(resources: dict[str, float], function: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function where the encoder can be."""
    try:
        return ray.get(ray.remote(function).options(**resources).remote(*arguments))
    except RayError as error:
        raise _reason(error) from error


def _reason(error: BaseException) -> Exception:
    """The error as it was on the node, without Ray's report of where."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ValueError | OSError) and not isinstance(seen, RayError):
            return seen
        seen = getattr(seen, "cause", None) or seen.__cause__
    return OSError(
        f"The job on Ray stopped ({error}). Finished shards are whole; run it again, and it goes on from there."
    )
