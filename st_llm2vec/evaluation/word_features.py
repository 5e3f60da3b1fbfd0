"""Word vectors of a file, computed once for an encoder and kept on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer

from st_llm2vec.evaluation.fingerprint import decoder_digest
from st_llm2vec.evaluation.words import encode_words
from st_llm2vec.folder.disk_errors import disk_errors
from st_llm2vec.folder.staging import replacing_file

AT_ONCE = 256
VERSION = 1
"""Raised when :func:`encode_words` gives other vectors for the same encoder, so that kept ones are not read."""


def word_features(
    encoder: SentenceTransformer,
    sentences: list[list[str]],
    shift: bool = False,
    cache: str | Path | None = None,
    advance: Callable[[int], object] = lambda sentences: None,
) -> NDArray[np.float32]:
    """The vectors of all words of some sentences, one below the other.

    A file in the cache belongs to these words, this encoder (every weight, its type, its settings and its tokenizer) and
    ``shift``. It appears when all is computed, so that an interrupted run computes it anew and never reads a part of it.

    Args:
        encoder: Any encoder that :func:`encode_words` takes.
        sentences: The words of each sentence.
        shift: As for :func:`encode_words`.
        cache: The folder for the ``.npy`` file; in memory, and lost, if not given.
        advance: Called with the numbers of sentences as they are done.

    Returns:
        An array of shape ``(words, hidden)``, mapped from the file where there is a cache.

    Raises:
        ValueError: As for :func:`encode_words`.
        OSError: If the file cannot be written.
    """
    if cache is None:
        return np.concatenate(list(_parts(encoder, sentences, shift, advance)))
    target = Path(cache) / f"{_key(encoder, sentences, shift)}.npy"
    if target.is_file():
        advance(len(sentences))
    else:
        with disk_errors(target), replacing_file(target) as fresh, fresh.open("wb") as file:
            shape = (sum(map(len, sentences)), cast("Transformer", encoder[0]).get_embedding_dimension())
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for vectors in _parts(encoder, sentences, shift, advance):
                file.write(np.ascontiguousarray(vectors, "<f4").data)
    features: NDArray[np.float32] = np.load(target, mmap_mode="r")
    return features


def _parts(
    encoder: SentenceTransformer, sentences: list[list[str]], shift: bool, advance: Callable[[int], object]
) -> Iterator[NDArray[np.float32]]:
    for start in range(0, len(sentences), AT_ONCE):
        some = sentences[start : start + AT_ONCE]
        try:
            yield np.concatenate(encode_words(encoder, some, shift))
        except ValueError as error:
            raise ValueError(f"Among the {len(some)} sentences from number {start} on: {error}") from error
        advance(len(some))


def _key(encoder: SentenceTransformer, sentences: list[list[str]], shift: bool) -> str:
    """A digest of all that the vectors depend on."""
    return decoder_digest(encoder, [VERSION, shift, encoder.max_seq_length], sentences).hexdigest()
