"""Encoders as MTEB calls them, with each task's instruction in the place that the recipe has for it.

MTEB is in the extra ``evaluation``: it is imported in the calls here, so that this module can be read without it.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping, Sequence
from functools import cache as only_once
from pathlib import Path
from statistics import fmean
from typing import Any

from sentence_transformers import SentenceTransformer

from st_llm2vec.evaluation.fingerprint import encoder_fingerprint
from st_llm2vec.evaluation.task_encoder import takes_instructions

PAPER = (
    "SciFact",
    "ArguAna",
    "NFCorpus",
    "StackOverflowDupQuestions",
    "SciDocsRR",
    "BiorxivClusteringS2S",
    "MedrxivClusteringS2S",
    "TwentyNewsgroupsClustering",
    "SprintDuplicateQuestions",
    "Banking77Classification",
    "EmotionClassification",
    "MassiveIntentClassification",
    "STS17",
    "SICK-R",
    "STSBenchmark",
)
"""LLM2Vec's subset of 15 tasks (arXiv 2404.05961, table 5)."""
ENGLISH = "eng"
REVISION = 40
COLON = "llm2vec"


def as_mteb(
    encoder: SentenceTransformer, name: str | None = None, instructions: Mapping[str, str] | None = None
) -> Any:
    """Wrap an encoder for ``mteb.evaluate``, with MTEB's description of it.

    A task's instruction is MTEB's own, unless ``instructions`` has another. Queries, and texts that are compared with each
    other, are told it; documents are not. Encoders without a place for an instruction use the prompts that they were saved
    with. The recipe ``llm2vec`` gets instructions as its authors gave them to MTEB, with a colon in the place of the period.

    Args:
        encoder: Any ``SentenceTransformer``.
        name: ``org/name``, under which MTEB keeps results; made from the encoder's folder if not given.
        instructions: Bare instructions by the names of tasks, by kinds of task such as ``STS``, or by ``query``.

    Returns:
        An encoder of MTEB. Its revision is a digest of weights and settings, so that kept results are its own.

    Raises:
        ValueError: If MTEB is not installed.
    """
    require_mteb()
    return _wrapper()(encoder, name, instructions)


def find_tasks(names: Sequence[str]) -> list[Any]:
    """MTEB's tasks by name.

    Args:
        names: Names of tasks or of benchmarks, or ``paper`` for :data:`PAPER`.

    Returns:
        The tasks, in English where they are in several languages.

    Raises:
        ValueError: If MTEB is not installed, or knows no task or benchmark of a name.
    """
    require_mteb()
    import mteb

    wanted = [one for name in names for one in (PAPER if name == "paper" else (name,))]
    found: list[Any] = []
    for name in wanted:
        try:
            found.append(mteb.get_task(name, languages=[ENGLISH], exclusive_language_filter=True))
        except KeyError:
            try:
                found += list(mteb.get_benchmark(name).tasks)
            except KeyError:
                raise ValueError(f"MTEB {mteb.__version__} knows no task and no benchmark {name!r}.") from None
    return found


def run_mteb(
    encoder: SentenceTransformer,
    tasks: Sequence[Any],
    *,
    name: str | None = None,
    instructions: Mapping[str, str] | None = None,
    cache: str | Path | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> list[dict[str, Any]]:
    """Score an encoder on MTEB's tasks; those that MTEB has kept results of are not run again.

    Args:
        encoder: Any ``SentenceTransformer``.
        tasks: MTEB's tasks, such as those of :func:`find_tasks`, or of your own.
        name: As for :func:`as_mteb`.
        instructions: As for :func:`as_mteb`.
        cache: The folder of MTEB's kept results; MTEB's own if not given.
        batch_size: Texts in a batch.
        progress: Whether MTEB shows its bars.

    Returns:
        MTEB's results as plain data, one for each task, which ``publish --results`` reads.

    Raises:
        ValueError: If MTEB is not installed, or a task's data cannot be had.
    """
    wrapped = as_mteb(encoder, name, instructions)
    import mteb

    kept = mteb.ResultCache(cache_path=Path(cache).expanduser()) if cache is not None else mteb.ResultCache()
    return [_run(wrapped, task, kept, batch_size, progress) for task in tasks]


def _run(wrapped: Any, task: Any, kept: Any, batch_size: int, progress: bool) -> dict[str, Any]:
    import mteb
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    unreachable = (ConnectionError, DatasetsError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled)
    options = {"encode_kwargs": {"batch_size": batch_size}, "cache": kept, "show_progress_bar": progress}
    try:
        found = mteb.evaluate(wrapped, task, co2_tracker=False, **options)
    except unreachable as error:
        raise ValueError(
            f"The data of the task {task.metadata.name} comes from the Hugging Face Hub, which cannot be reached here. Run it "
            "once where there is a network, or use files of your own: `st-llm2vec evaluate tasks`. The reason: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    plain: dict[str, Any] = json.loads(json.dumps(found.task_results[0].to_dict(), default=str))
    return plain


def main_score(result: Mapping[str, Any]) -> float:
    """The mean of a task's main score over its splits and subsets.

    Args:
        result: One of :func:`run_mteb`.

    Returns:
        The mean, times 100.
    """
    return 100 * fmean(row["main_score"] for split in result["scores"].values() for row in split)


def require_mteb() -> None:
    """Raise unless MTEB is installed.

    Raises:
        ValueError: If it is not.
    """
    if importlib.util.find_spec("mteb") is None:
        raise ValueError("MTEB is not installed: pip install 'st-llm2vec[evaluation]'.")


@only_once
def _wrapper() -> Any:
    """The class, which is one of MTEB's."""
    from mteb.models.abs_encoder import AbsEncoder
    from mteb.models.model_meta import ModelMeta
    from mteb.types import PromptType

    class InstructedEncoder(AbsEncoder):
        """An encoder as MTEB calls it."""

        def __init__(
            self, encoder: SentenceTransformer, name: str | None, instructions: Mapping[str, str] | None
        ) -> None:
            self.model: Any = encoder
            self.prompts_dict = dict(instructions or {})
            described = ModelMeta._from_sentence_transformer_model(encoder)
            folder = encoder.model_card_data.base_model or encoder.model_card_data.model_id or "encoder"
            self.mteb_model_meta = described.model_copy(
                update={
                    "name": name or f"local/{Path(str(folder)).name}",
                    "revision": _revision(encoder, self.prompts_dict),
                    "n_parameters": sum(one.numel() for one in encoder.parameters()),
                    "use_instructions": takes_instructions(encoder),
                    "open_weights": True,
                }
            )

        def encode(
            self, inputs: Any, *, task_metadata: Any, prompt_type: PromptType | None = None, **options: Any
        ) -> Any:
            """Encode MTEB's batches."""
            texts = [text for batch in inputs for text in batch["text"]]
            options = {name: value for name, value in options.items() if not name.startswith("hf_")}
            if prompt_type == PromptType.document:
                return self.model.encode_document(texts, **options)
            instruction = self._instruction(task_metadata, prompt_type)
            call = self.model.encode_query if prompt_type == PromptType.query else self.model.encode
            return call(texts, prompt=instruction, **options)

        def _instruction(self, task: Any, prompt_type: PromptType | None) -> str | None:
            if not takes_instructions(self.model):
                return None
            told = self.get_instruction(task, prompt_type)
            if told and self.model.manifest.config.name == COLON:
                return told.rstrip().removesuffix(".").removesuffix(":") + ":"
            return told or None

    return InstructedEncoder


def _revision(encoder: SentenceTransformer, instructions: Mapping[str, str]) -> str:
    """By which MTEB keeps scores: a digest of the encoder and, where there are any, of the instructions of the tasks."""
    digest = encoder_fingerprint(encoder)
    if instructions:
        digest = hashlib.sha256(json.dumps([digest, dict(instructions)], sort_keys=True).encode()).hexdigest()
    return digest[:REVISION]
