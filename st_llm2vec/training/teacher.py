"""The vectors of a teacher, computed once for an encoder and some texts and kept on the disk."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from accelerate import PartialState
from datasets import Dataset, concatenate_datasets
from datasets.table import InMemoryTable
from datasets.utils import tqdm
from sentence_transformers import SentenceTransformer

from st_llm2vec.evaluation.fingerprint import encoder_fingerprint
from st_llm2vec.evaluation.kept import default_cache
from st_llm2vec.folder.disk_errors import disk_errors
from st_llm2vec.folder.load import load
from st_llm2vec.folder.staging import replacing_file
from st_llm2vec.inspection import is_encoder

logger = logging.getLogger(__name__)
AT_ONCE = 2048
VERSION = 1
"""Raised when an encoder with the same fingerprint gives other vectors, so that kept ones are not read."""


def require_teacher(teacher: str) -> None:
    """Refuse a teacher that is no encoder, before anything is loaded.

    Args:
        teacher: A folder, or a name on the Hub.

    Raises:
        ValueError: If it is none.
    """
    if not teacher:
        raise ValueError(
            "The stage has no teacher; name a stronger encoder, a folder or a name on the Hub: "
            "teacher: sentence-transformers/all-MiniLM-L6-v2."
        )
    if not is_encoder(teacher):
        raise ValueError(
            f"The teacher {teacher} is no encoder: it has no modules.json, which Sentence Transformers writes. A decoder is made "
            "one first: st-llm2vec convert."
        )


def with_teacher_vectors(texts: Dataset, teacher: str, prompt: str | None = None) -> Dataset:
    """Add the teacher's vectors to texts.

    They are computed once on each machine, by its first process, and kept in ``~/.cache/st-llm2vec/teachers``
    (``$XDG_CACHE_HOME`` names another place). A file belongs to these texts in this order, this encoder (every weight, its
    type and its settings) and this prompt; it appears when all is computed.

    Args:
        texts: Columns of texts.
        teacher: The encoder: a folder or a name on the Hub.
        prompt: What it is told before each text, as ``encode(prompt=...)`` takes it.

    Returns:
        The texts with a column ``label``: a vector, or one for each column.

    Raises:
        ValueError: If the teacher is no encoder, or one of its vectors is not finite.
        OSError: If the vectors cannot be kept.
    """
    columns = texts.column_names
    flat = [text for column in columns for text in texts[column]]
    with PartialState().local_main_process_first():
        path = _kept(flat, load(teacher), teacher, prompt)
    vectors = np.load(path, mmap_mode="r")
    by_row = np.ascontiguousarray(vectors.reshape(len(columns), len(texts), -1).transpose(1, 0, 2))
    label = pa.FixedSizeListArray.from_arrays(pa.array(by_row.reshape(-1)), vectors.shape[1])
    if len(columns) > 1:
        label = pa.FixedSizeListArray.from_arrays(label, len(columns))
    labels = Dataset(InMemoryTable(pa.table({"label": label})), fingerprint=path.stem)
    return concatenate_datasets([texts.flatten_indices(), labels], axis=1)


def _kept(texts: list[str], teacher: SentenceTransformer, name: str, prompt: str | None) -> Path:
    """The file of the vectors, of shape ``(texts, dimension)`` in float32, which is written if it is not there."""
    about = json.dumps([VERSION, encoder_fingerprint(teacher), prompt, texts])
    target = default_cache("teachers") / f"{hashlib.sha256(about.encode()).hexdigest()}.npy"
    if target.is_file():
        logger.info("The vectors of the teacher %s are read from %s.", name, target)
        return target
    bar = tqdm(total=len(texts), desc=f"Asking the teacher {name}", unit=" texts")
    with disk_errors(target), replacing_file(target) as fresh, fresh.open("wb") as file, bar:
        shape = (len(texts), teacher.get_embedding_dimension())
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        for start in range(0, len(texts), AT_ONCE):
            some = texts[start : start + AT_ONCE]
            vectors: Any = teacher.encode(some, prompt=prompt, convert_to_tensor=True, show_progress_bar=False)
            found = vectors.float().cpu().numpy()
            if not np.isfinite(found).all():
                row = int(np.flatnonzero(~np.isfinite(found).all(axis=1))[0])
                raise ValueError(f"The teacher {name} gives a vector that is not finite, of {some[row][:40]!r}.")
            file.write(np.ascontiguousarray(found, "<f4").data)
            bar.update(len(some))
    logger.info("The vectors of the teacher %s are kept in %s.", name, target)
    return target
