"""The proof before anything is published: the folder, read by a stranger, says what the encoder says."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sentence_transformers
import torch
import transformers

from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.merge import type_name
from st_llm2vec.folder.module_file import MODULE_NAME
from st_llm2vec.modules.attention import AttentionProbe, CausalAttentionError, configured_attention
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.fresh_process import read_without_package
from st_llm2vec.proof.texts import TEXTS
from st_llm2vec.proof.tolerances import VECTORS


@dataclass(frozen=True)
class Check:
    """What was compared and found, for the model card.

    Args:
        texts: How many texts.
        prompts: With how many prompts, none included.
        dtype: The weights' type.
        tolerance: The largest cosine distance that passes.
        distance: Between the encoder here and the folder read without this package.
        invariance: Between each text alone and in a batch.
        merged: Between the encoder with its adapters attached and merged, in float32; ``None`` without adapters.
        probe: The attention probe of the model as it was loaded there.
        versions: Of the libraries that read it.
    """

    texts: int
    prompts: int
    dtype: str
    tolerance: float
    distance: float
    invariance: float
    merged: float | None
    probe: AttentionProbe
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "probe": self.probe.to_dict()}


def check_folder(encoder: TextEncoder, folder: Path, merged: float | None = None, device: str | None = "cpu") -> Check:
    """Load a folder in a fresh process without this package and compare; raise unless everything agrees.

    Args:
        encoder: What was saved in the folder, without adapters.
        folder: The folder.
        merged: How far its vectors moved when adapters were merged, if it had any.
        device: Where the fresh process runs.

    Returns:
        What was found.

    Raises:
        CausalAttentionError: If the model attends only backwards there and is meant to attend in both directions.
        ValueError: If vectors differ, or depend on the batch.
    """
    custom = (folder / f"{MODULE_NAME}.py").is_file()
    prompt_names = [None, *(name for name, text in encoder.prompts.items() if text)]
    reading = read_without_package(folder, TEXTS, prompt_names, trust_remote_code=custom, alone=True, device=device)
    assert reading.alone is not None
    _prove_attention(encoder, reading.probe)
    here = [
        encoder.encode(list(TEXTS), prompt_name=name, show_progress_bar=False, convert_to_tensor=True)
        for name in prompt_names
    ]
    dtype = encoder.transformer.model.dtype
    check = Check(
        texts=len(TEXTS),
        prompts=len(prompt_names),
        dtype=type_name(dtype),
        tolerance=VECTORS.of(dtype),
        distance=largest_cosine_distance(torch.stack(here).float().cpu().numpy(), reading.vectors),
        invariance=largest_cosine_distance(reading.vectors, reading.alone),
        merged=merged,
        probe=reading.probe,
        versions={
            "sentence-transformers": sentence_transformers.__version__,
            "transformers": transformers.__version__,
        },
    )
    for finding, distance in (
        ("plain Sentence Transformers, without this package, gives other vectors", check.distance),
        ("a text's vector depends on the texts beside it", check.invariance),
    ):
        if not distance <= check.tolerance:
            raise ValueError(
                f"The folder is not published, since {finding}: the largest cosine distance over {check.texts} texts is "
                f"{distance:.1e}, more than {check.tolerance:.0e} ({check.dtype})."
            )
    return check


def _prove_attention(encoder: TextEncoder, probe: AttentionProbe) -> None:
    manifest = encoder.manifest
    meant = manifest.config.attention if manifest is not None else configured_attention(encoder.transformer.model)
    if meant == "bidirectional" and not probe.sees_future:
        raise CausalAttentionError(
            f"The encoder is meant to attend in both directions, but plain Sentence Transformers loads it so that the "
            f"probe finds: {probe.describe()}. It is not published."
        )
    if meant == "causal" and probe.kind != "causal":
        raise ValueError(
            f"The encoder is meant to be causal, but plain Sentence Transformers loads it so that the probe finds: "
            f"{probe.describe()}. It is not published."
        )
