"""LangChain's own tests, as they are."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_tests.integration_tests import EmbeddingsIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests

from langchain_st_llm2vec import STLLM2VecEmbeddings


class OurEmbeddings:
    folder: str

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _encoder(cls, portable: str) -> None:
        cls.folder = portable

    @property
    def embeddings_class(self) -> type[STLLM2VecEmbeddings]:
        return STLLM2VecEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": self.folder}


class TestUnit(OurEmbeddings, EmbeddingsUnitTests):
    pass


class TestIntegration(OurEmbeddings, EmbeddingsIntegrationTests):
    pass
