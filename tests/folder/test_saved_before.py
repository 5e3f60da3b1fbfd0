"""Folders that earlier versions saved load with the vectors that they had; ``write_saved.py`` adds this version's."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_llm2vec import load
from st_llm2vec.folder.module_file import MODULE_NAME
from tests.conftest import INSTRUCTION, TEXTS, SameVectors
from tests.promises import Promise

pytestmark = pytest.mark.promise(Promise.COMPATIBLE)

SAVED = sorted(one for one in (Path(__file__).parent / "saved").glob("*/*") if one.is_dir())


@pytest.fixture(params=SAVED, ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with ``encoder``, ``vectors.json`` and, for an adapter, its ``base``."""
    folder = Path(shutil.copytree(request.param, tmp_path / "saved"))
    modules = json.loads((folder / "encoder" / "modules.json").read_text(encoding="utf-8"))
    if any(module["type"].startswith(MODULE_NAME) for module in modules):  # it is the same file in all of them
        shutil.copy(request.param.parent / f"{MODULE_NAME}.py", folder / "encoder")
    adapter = folder / "encoder" / "adapter_config.json"
    if adapter.is_file():
        settings = json.loads(adapter.read_text(encoding="utf-8"))
        adapter.write_text(json.dumps({**settings, "base_model_name_or_path": str(folder / "base")}), encoding="utf-8")
    return folder


def test_an_earlier_version_s_folder_has_the_vectors_that_it_had(saved: Path, same_vectors: SameVectors) -> None:
    expected = json.loads((saved / "vectors.json").read_text(encoding="utf-8"))
    encoder = load(saved / "encoder", dtype=torch.float32)
    assert encoder.layout == expected["layout"]
    found = {"plain": encoder.encode(TEXTS), "query": encoder.encode_query(TEXTS)}
    if "instructed" in expected["vectors"]:
        found["instructed"] = encoder.encode(TEXTS, prompt=INSTRUCTION)
    for way, vectors in expected["vectors"].items():
        same_vectors(found[way], np.array(vectors))


def test_and_so_it_has_in_plain_sentence_transformers(saved: Path, same_vectors: SameVectors) -> None:
    expected = json.loads((saved / "vectors.json").read_text(encoding="utf-8"))
    custom = expected["layout"] == "custom" or (saved / "base").is_dir()
    options = {"model_kwargs": {"dtype": torch.float32}, "trust_remote_code": custom}
    encoder = SentenceTransformer(str(saved / "encoder"), **options)
    same_vectors(encoder.encode(TEXTS), np.array(expected["vectors"]["plain"]))
    same_vectors(encoder.encode_query(TEXTS), np.array(expected["vectors"]["query"]))


def test_the_fixtures_are_there() -> None:
    assert {folder.name for folder in SAVED} >= {"text", "message", "custom-span", "custom-latent", "adapter"}
