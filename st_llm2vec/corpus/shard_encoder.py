"""From the rows of a shard to its file: what one process does, with the encoder in its memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers.util.quantization import quantize_embeddings

from st_llm2vec.corpus.corpus import Row, judge
from st_llm2vec.corpus.job_folder import JobFolder
from st_llm2vec.corpus.settings import CALIBRATED, PACKED, EmbeddingSettings
from st_llm2vec.corpus.shard_files import ShardReport
from st_llm2vec.evaluation.fingerprint import encoder_fingerprint
from st_llm2vec.folder.load import load
from st_llm2vec.modules.formatter import UNLIMITED

BATCHES_PER_CALL = 16
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
CASTS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class ShardRows:
    """The rows of a shard, as they were read.

    Args:
        shard: The shard's number.
        rows: Its rows.
        named_ids: Whether ids are strings.
    """

    shard: int
    rows: list[Row]
    named_ids: bool


class ShardEncoder:
    """An encoder that turns shards of rows into files.

    Args:
        settings: How.
        folder: The job's folder.
        device: Where the encoder is; chosen by Sentence Transformers if not given.
    """

    def __init__(self, settings: EmbeddingSettings, folder: Path, device: str | None = None) -> None:
        self.settings = settings
        self.folder = JobFolder(folder, settings.file_format)
        self.encoder = load(
            settings.encoder,
            device=device,
            dtype=settings.dtype,
            attn_implementation=settings.attn_implementation,
            revision=settings.revision,
        )
        full = self.encoder.get_embedding_dimension() or 0
        if settings.truncate_dim is not None and settings.truncate_dim > full:
            raise ValueError(f"truncate_dim={settings.truncate_dim} is more than the encoder's {full} dimensions.")
        self.dimension = settings.truncate_dim or full
        self.prompt = self._prompt()
        self.ranges: np.ndarray | None = None

    def describe(self) -> dict[str, Any]:
        """What has to be the same when a job is resumed: the encoder, the prompt and the width."""
        chosen = {"dtype": str(self.encoder.dtype)} if self.settings.dtype == "auto" else {}
        return {
            **chosen,
            "encoder": encoder_fingerprint(self.encoder),
            "prompt": self.prompt,
            "max_seq_length": self.encoder.max_seq_length,
            "dimension": self.dimension,
        }

    def calibrate(self, texts: Sequence[str]) -> np.ndarray:
        """The smallest and the largest value in each dimension ``(2, dimension)`` over some texts.

        Raises:
            ValueError: If there are fewer than two.
        """
        if len(texts) < 2:
            raise ValueError(f"{self.settings.precision} needs at least two texts to find its ranges.")
        vectors = torch.cat([part for _, part in self._encode(texts, self._token_counts(texts))]).numpy()
        return np.stack([vectors.min(axis=0), vectors.max(axis=0)])

    def process(self, shard: ShardRows, advance: Advance | None = None) -> ShardReport:
        """Embed a shard and write it.

        Args:
            shard: Its rows.
            advance: Called with the numbers of rows and of tokens that are done.

        Returns:
            What became of the rows.
        """
        judged = [(row, judge(row, self.settings.max_chars)) for row in shard.rows]
        rows = [row for row, problem in judged if problem is None]
        rejected = [_record(row, problem, embedded=False) for row, problem in judged if problem is not None]
        texts = [row.value for row in rows]
        counts = self._token_counts(texts)
        limit = self.encoder.max_seq_length or UNLIMITED
        long = [position for position, count in enumerate(counts) if count > limit]
        skip = self.settings.too_long == "skip"
        for position in long:
            problem = f"too long: {counts[position]:,} tokens, and the encoder reads {limit:,}"
            rejected.append(_record(rows[position], problem, embedded=not skip))
        if skip and long:
            kept = sorted(set(range(len(rows))) - set(long))
            rows, texts, counts = [rows[at] for at in kept], [texts[at] for at in kept], [counts[at] for at in kept]
        read = np.minimum(counts, limit)
        report = ShardReport(
            shard=shard.shard,
            first_row=shard.shard * self.settings.shard_rows,
            rows=len(shard.rows),
            embedded=len(rows),
            rejected=len(shard.rows) - len(rows),
            truncated=0 if skip else len(long),
            tokens=int(read.sum()),
        )
        if advance and report.rejected:
            advance(report.rejected, 0)
        vectors = self._vectors(texts, counts, read, advance)
        rejected.sort(key=lambda record: record["row"])
        self.folder.write(report, [row.id for row in rows], vectors, shard.named_ids, rejected)
        return report

    def _vectors(self, texts: list[str], counts: list[int], read: Any, advance: Advance | None) -> torch.Tensor:
        """The vectors ``(texts, width)`` as they are stored."""
        stored = self._store(torch.zeros(1, self.dimension))
        vectors = torch.zeros(len(texts), stored.shape[1], dtype=stored.dtype)
        for positions, part in self._encode(texts, counts):
            vectors[torch.from_numpy(positions)] = self._store(part)
            if advance:
                advance(len(positions), int(read[positions].sum()))
        return vectors

    def _encode(self, texts: Sequence[str], counts: Sequence[int]) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        """Vectors in float32 of some texts at a time, longest first, which leaves little padding."""
        order = np.argsort(-np.asarray(counts, dtype=np.int64), kind="stable")
        size = BATCHES_PER_CALL * self.settings.batch_size
        encode = self.encoder.encode_query if self.settings.task == "query" else self.encoder.encode_document
        for begin in range(0, len(order), size):
            positions = order[begin : begin + size]
            chosen = [texts[position] for position in positions]
            vectors = encode(
                chosen,
                prompt=self.prompt,
                batch_size=self.settings.batch_size,
                truncate_dim=self.settings.truncate_dim,
                normalize_embeddings=self.settings.normalize,
                show_progress_bar=False,
                convert_to_tensor=True,
            )
            yield positions, vectors.float().cpu()

    def _store(self, vectors: torch.Tensor) -> torch.Tensor:
        """Vectors in the precision that is stored, by Sentence Transformers' own quantisation."""
        precision = self.settings.precision
        if precision in CASTS:
            return vectors.to(CASTS[precision])
        if precision in CALIBRATED and self.ranges is None:
            self.ranges = self.folder.ranges()
        options = {"ranges": self.ranges} if precision not in PACKED else {}
        return torch.from_numpy(np.asarray(quantize_embeddings(vectors.numpy(), precision, **options)))  # type: ignore

    def _token_counts(self, texts: Sequence[str]) -> list[int]:
        """How many tokens each text would have if nothing were cut, template and instruction included."""
        order = sorted(range(len(texts)), key=lambda position: len(texts[position]))
        counts = [0] * len(texts)
        for begin in range(0, len(order), self.settings.batch_size):
            positions = order[begin : begin + self.settings.batch_size]
            chosen = [texts[position] for position in positions]
            features = self.encoder.preprocess(
                chosen, prompt=self.prompt, task=self.settings.task, max_length=UNLIMITED
            )
            readings = np.reshape(_lengths(features), (len(positions), -1))  # a text may be read more than once
            for position, count in zip(positions, readings.max(axis=1).tolist(), strict=True):
                counts[position] = count
        return counts

    def _prompt(self) -> str | None:
        """The prompt that ``encode_query`` or ``encode_document`` would take."""
        settings, prompts = self.settings, self.encoder.prompts
        if settings.prompt is not None:
            return settings.prompt
        if settings.prompt_name is not None:
            if settings.prompt_name not in prompts:
                known = ", ".join(prompts) or "none"
                raise ValueError(f"The encoder has no prompt {settings.prompt_name!r}; it has {known}.")
            return prompts[settings.prompt_name]
        names = DOCUMENT_PROMPTS if settings.task == "document" else ("query",)
        saved = next((name for name in names if name in prompts), self.encoder.default_prompt_name)
        return prompts.get(saved) if saved else None


def _lengths(features: dict[str, Any]) -> list[int]:
    """How many tokens the rows of a batch have, be it padded or packed."""
    if "attention_mask" in features:
        return features["attention_mask"].sum(dim=1).tolist()
    return torch.diff(features["cu_seq_lens_q"]).tolist()


def _record(row: Row, problem: str, embedded: bool) -> dict[str, Any]:
    shown = row.value if isinstance(row.value, str) else repr(row.value)
    return {"row": row.number, "id": row.id, "problem": problem, "embedded": embedded, "value": shown[:80]}
