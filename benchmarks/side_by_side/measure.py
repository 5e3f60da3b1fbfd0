"""Rounds in which the contenders take turns, and what comes of them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.side_by_side.contenders import CONTENDERS, REFERENCES, Field
from benchmarks.side_by_side.flops import forward_flops
from st_llm2vec.proof.tolerances import VECTORS

LIMITS = {"float32": VECTORS.full, "bfloat16": VECTORS.half}
"""Largest cosine distance from the vectors of plain Sentence Transformers, in float32 where that takes part."""


def encode_in_turns(
    field: Field, texts: Mapping[str, Any], shape: Mapping[str, Any], rounds: int, folder: Path
) -> list[dict[str, Any]]:
    """Let all contenders encode the same texts, again and again.

    Args:
        field: The contenders, loaded.
        texts: As ``Texts.write`` describes them.
        shape: The model's sizes.
        rounds: How often each encodes them, after a first pass that is told apart, and before one for memory.
        folder: For the vectors.

    Returns:
        A row for each contender.
    """
    folder.mkdir(parents=True, exist_ok=True)
    turns, job = field.turns, {"texts": texts["file"]}
    first = turns.once(do="run", job=lambda name: {**job, "vectors": str(folder / f"{name}.npy")})
    peaks: dict[str, list[float]] = {dtype: [] for dtype in {field.dtype(name) for name in turns.workers}}
    seconds: dict[str, list[float]] = {name: [] for name in turns.workers}
    for _ in range(rounds):
        for dtype, found in peaks.items():
            found += [answer["flops_per_second"] for answer in _one(turns, "matmul", dtype=dtype)]
        for name, answer in turns.once(do="run", job=job).items():
            seconds[name].append(answer["seconds"])
    memory = turns.once(do="run", job=job, memory=True)
    distances = cosine_distances({name: folder / f"{name}.npy" for name in memory})
    flops = forward_flops(shape, texts["lengths"])
    order = [name for name in CONTENDERS if name in memory]
    measured = {name: seconds[name] for name in order}
    dtypes = {name: field.dtype(name) for name in order}
    return [
        {
            "contender": name,
            "dtype": dtypes[name],
            "seconds": seconds[name],
            "median_seconds": statistics.median(seconds[name]),
            "tokens_per_second": sum(texts["lengths"]) / statistics.median(seconds[name]),
            "texts_per_second": len(texts["lengths"]) / statistics.median(seconds[name]),
            "ratios": ratios(name, measured),
            "matmul_share": flops / statistics.median(seconds[name]) / statistics.median(peaks[dtypes[name]]),
            "first_pass_seconds": first[name]["seconds"],
            "peak_mib": memory[name]["peak_mib"],
            "cosine_distance": distances.get(name),
        }
        for name in order
    ]


def ratios(name: str, seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """How many times as fast as each other contender: medians of the rounds' ratios."""
    own = seconds[name]
    return {
        other: statistics.median(b / a for a, b in zip(own, theirs, strict=True))
        for other, theirs in seconds.items()
        if other != name
    }


def cosine_distances(files: Mapping[str, Path]) -> dict[str, float]:
    """The largest distance of a text's vector from the reference's; nothing where no reference takes part."""
    reference = next((name for name in REFERENCES if name in files), None)
    if reference is None:
        return {}
    vectors = {name: unit(np.load(file)) for name, file in files.items()}
    return {name: float((1 - (found * vectors[reference]).sum(1)).max()) for name, found in vectors.items()}


def between_texts(file: Path) -> float:
    """The median distance of a text's vector from the next one's, beside which the others are to be read."""
    vectors = unit(np.load(file))
    return float(np.median(1 - (vectors[1:] * vectors[:-1]).sum(1)))


def disagreements(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each contender whose vectors are not those of the reference."""
    return [
        f"{row['contender']} on {row['dataset']} texts ({row['shape']}): its vectors are up to "
        f"{row['cosine_distance']:.1e} from the reference; {LIMITS[row['dtype']]:.0e} is allowed for {row['dtype']}."
        for row in rows
        if row["cosine_distance"] is not None and not row["cosine_distance"] <= LIMITS[row["dtype"]]
    ]


def unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _one(turns: Any, kind: str, **request: Any) -> list[dict[str, Any]]:
    """The answer of one worker, whoever it is."""
    return list(turns.once(only=list(turns.workers)[:1], do=kind, **request).values())
