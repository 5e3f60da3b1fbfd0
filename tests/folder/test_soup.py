"""Merging runs of one decoder into one encoder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from st_llm2vec import TextEncoder, convert, load
from st_llm2vec.publishing.stages import stage_settings

from ..conftest import TEXTS, cosine_distance

pytest.importorskip("mergekit", reason="mergekit is not installed; `make test-integrations` has it")


@pytest.fixture
def runs(decoder: str, tmp_path: Path) -> list[str]:
    folders = []
    for seed in (1, 2):
        encoder = convert(decoder, "llm2vec", dtype=torch.float32, measure=False)
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in encoder[0].model.parameters():
                weight.add_(0.01 * torch.randn_like(weight))
        encoder.manifest = replace(encoder.manifest, stages=[{"name": "simcse", "settings": {"seed": seed}}])
        encoder.base_fingerprint = None
        folders.append(str(tmp_path / f"seed-{seed}"))
        encoder.save(folders[-1])
    return folders


def test_a_soup_is_the_mean_and_its_record_says_so(runs: list[str], tmp_path: Path) -> None:
    soup = TextEncoder.merge(runs)
    first, second, both = (dict(one[0].model.named_parameters()) for one in (*map(load, runs), soup))
    assert all(torch.allclose(both[name], (first[name] + second[name]) / 2, atol=1e-6) for name in both)
    soup.save(str(tmp_path / "soup"))
    found = load(tmp_path / "soup")
    assert cosine_distance(found.encode(TEXTS), soup.encode(TEXTS)) < 1e-6
    assert [stage["name"] for stage in found.manifest.stages] == ["simcse", "merge"]
    assert "seed-2" in stage_settings(found.manifest.stages[-1])["models"]


def test_encoders_of_two_recipes_are_refused(runs: list[str], decoder: str) -> None:
    other = convert(decoder, "prompteol", measure=False)
    with pytest.raises(ValueError, match="different"):
        TextEncoder.merge([runs[0], other])
