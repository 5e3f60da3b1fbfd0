"""Whatever LlamaIndex hands over: the encoder's vector in its place, finite, or a sentence that names the text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.embeddings.st_llm2vec import STLLM2VecEmbedding

import st_llm2vec
from tests.odd_inputs import batches, no_texts

SETTINGS = settings(settings.get_profile("many"), max_examples=40)


def test_any_texts_get_the_vectors_of_the_encoder(folder: str) -> None:
    encoder, embedding = st_llm2vec.load(folder), STLLM2VecEmbedding(folder)

    @SETTINGS
    @given(batches)
    def holds(texts: list[str]) -> None:
        documents, query = np.array(embedding.get_text_embedding_batch(texts)), embedding.get_query_embedding(texts[-1])
        assert np.isfinite(documents).all() and np.isfinite(query).all()
        alone = np.concatenate([encoder.encode_document([text]) for text in texts])
        assert np.allclose(documents, alone, atol=1e-6)
        assert np.allclose(query, encoder.encode_query([texts[-1]])[0], atol=1e-6)

    holds()


def test_what_is_no_text_is_refused_by_its_place(portable: str) -> None:
    embedding = STLLM2VecEmbedding(portable)

    @SETTINGS
    @given(batches, no_texts, st.data())
    def holds(texts: list[str], wrong: Any, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(texts)))
        with pytest.raises((TypeError, ValueError), match=f"^(Text|Row) {place} (is|holds) "):
            embedding.get_text_embedding_batch([*texts[:place], wrong, *texts[place:]])
        with pytest.raises((TypeError, ValueError), match="^(Text|Row) 0 (is|holds) "):
            embedding.get_query_embedding(wrong)

    holds()
