"""Check an encoder: every check in turn, on the encoder as it is here and on its folder."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from st_llm2vec.checking.doors import drift, plain_reading, reloaded
from st_llm2vec.checking.finding import Finding
from st_llm2vec.checking.parallel import asyncio_tasks, threads
from st_llm2vec.checking.reading import specified, text_is_text, truncated
from st_llm2vec.checking.subject import Subject
from st_llm2vec.checking.vectors import attention, padded, random_batches
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.load import load

logger = logging.getLogger(__name__)

DTYPES = ("float32", "bfloat16", "float16")
CHECKS: dict[str, Callable[[Subject], Iterable[Finding]]] = {
    "attention": attention,
    "what is pooled": specified,
    "texts in random batches": random_batches,
    "padding": padded,
    "truncation": truncated,
    "special tokens in texts": text_is_text,
    "saving and loading": reloaded,
    "plain Sentence Transformers": plain_reading,
    "16 threads": threads,
    "asyncio": asyncio_tasks,
}


def check(
    model_or_folder: TextEncoder | str | Path,
    *,
    dtypes: Sequence[str] = DTYPES,
    progress: Callable[[str], None] = logger.info,
    **options: Any,
) -> list[Finding]:
    """Check that an encoder is what it promises: here, with the installed libraries, on this machine.

    Its attention is probed. Its vectors are compared with those of its recipe by a direct pass of each text, alone and in random
    batches, padded on either side and not at all, saved and loaded, read by plain Sentence Transformers in a process of its own,
    in several types of weights, from 16 threads and from asyncio. Long texts must keep what the template puts around them, and
    special tokens in a text must be text.

    Args:
        model_or_folder: The encoder; or a folder or a name on the Hub that :func:`st_llm2vec.load` takes.
        dtypes: Types of weights to compare with float32, of ``"float32"``, ``"bfloat16"`` and ``"float16"``.
        progress: Is told what is being checked.
        **options: For ``load``, such as ``device``, ``dtype`` and ``revision``.

    Returns:
        What each check found, in order.

    Raises:
        ValueError: If it is no encoder, cannot be loaded or saved, or a type is not known.
        CausalAttentionError: If a folder's encoder is meant to be bidirectional and is not.
    """
    unknown = [name for name in dtypes if name not in DTYPES]
    if unknown:
        raise ValueError(f"The type {unknown[0]!r} is not one of {', '.join(DTYPES)}.")
    folder = None
    if isinstance(model_or_folder, TextEncoder):
        encoder = model_or_folder
    elif isinstance(model_or_folder, str | Path):
        progress(f"Loading {model_or_folder} …")
        encoder = load(model_or_folder, **options)
        as_stored = Path(model_or_folder).is_dir() and options.get("dtype") is None
        folder = Path(model_or_folder) if as_stored else None
    else:
        raise ValueError(
            f"check takes an encoder of this package or its folder, not a {type(model_or_folder).__name__}. Load the folder "
            "with st_llm2vec.load, or make an encoder with st_llm2vec.convert."
        )
    with tempfile.TemporaryDirectory() as temporary:
        subject = Subject(encoder, Path(temporary) / "encoder", folder)
        encoder.save(str(subject.saved), create_model_card=False)
        findings: list[Finding] = []
        for name, one in CHECKS.items():
            progress(f"Checking {name} …")
            findings += one(subject)
        for dtype in dtypes:
            progress(f"Checking {dtype} …")
            findings.append(drift(subject, dtype))
        return findings
