"""The values that authors published, and how they are compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from st_llm2vec import convert
from st_llm2vec.cli import app
from st_llm2vec.importing.references import (
    ExpectedVectors,
    find_reference,
    references,
    verify_similarities,
    verify_vectors,
)

from ..conftest import TEXTS


def test_references_are_whole() -> None:
    assert len(references()) == 6
    for name, one in references().items():
        assert np.array(one.expected).shape == (len(one.queries), len(one.documents)), name
        assert np.abs(one.expected).max() <= 1 and one.instruction and one.source
    listed = CliRunner().invoke(app, ["verify", "--json"])
    assert json.loads(listed.stdout) == list(references())


def test_a_copy_is_found_by_its_last_name() -> None:
    assert find_reference("copies/NV-Embed-v2/").model == "nvidia/NV-Embed-v2"
    with pytest.raises(ValueError, match="No published values.*--expected"):
        find_reference("org/other")


def test_similarities_of_another_model_do_not_pass(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec")
    found = verify_similarities(encoder, find_reference("NV-Embed-v2"))
    assert not found.passed and len(found.comparisons) == 4
    reference = find_reference("echo-mistral-7b-instruct-lasttoken")
    query = encoder.encode(list(reference.queries), prompt=reference.instruction)
    here = float(encoder.similarity(query, encoder.encode(list(reference.documents)))[0, 0])
    assert verify_similarities(encoder, reference).comparisons[0].found == pytest.approx(here, abs=1e-6)


def test_vectors_in_a_file(decoder: str, tmp_path: Path) -> None:
    encoder = convert(decoder, "llm2vec")
    vectors = encoder.encode(TEXTS)
    path = tmp_path / "expected.json"
    path.write_text(json.dumps({"texts": TEXTS, "documents": (3 * vectors).tolist()}))
    assert verify_vectors(encoder, ExpectedVectors.read(path)).passed
    path.write_text(json.dumps({"texts": TEXTS, "documents": vectors[::-1].tolist()}))
    assert not verify_vectors(encoder, ExpectedVectors.read(path)).passed
    for content, message in (
        ("{}", "does not hold texts"),
        (json.dumps({"texts": TEXTS}), "neither documents nor queries"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=message):
            verify_vectors(encoder, ExpectedVectors.read(path))
    path.write_text(json.dumps({"texts": TEXTS, "documents": [[1.0, 2.0]]}))
    with pytest.raises(ValueError, match="has the shape"):
        verify_vectors(encoder, ExpectedVectors.read(path))
