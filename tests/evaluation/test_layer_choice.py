"""A layer's score is that of the encoder that pools it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import torch
from scipy.stats import spearmanr
from sentence_transformers.util import pairwise_cos_sim

from st_llm2vec import convert
from st_llm2vec.evaluation.layer_choice import layer_scores
from st_llm2vec.evaluation.sentence_score import sentence_groups

from ..cli.test_cli import loud_again, succeed  # noqa: F401
from ..conftest import INSTRUCTION

GROUPS = sentence_groups()[:12]
FIRST = [group["text"] for group in GROUPS] * 2
SECOND = [group["same"] for group in GROUPS] + [group["near"] for group in GROUPS]
SCORES = [5.0] * len(GROUPS) + [2.0 + place / 10 for place in range(len(GROUPS))]


@pytest.mark.parametrize("recipe", ["prompteol", "llm2vec"])
def test_each_layer_scores_as_an_encoder_that_pools_it(recipe: str, decoder: str) -> None:
    encoder = convert(decoder, recipe, dtype=torch.float32, measure=False)
    found = layer_scores(encoder, FIRST, SECOND, SCORES, batch_size=5)
    assert len(found) == encoder[0].model.config.num_hidden_layers + 1
    for layer in (-1, -2, -len(found)):
        other = convert(decoder, recipe, dtype=torch.float32, measure=False, layer=layer)
        cosines = pairwise_cos_sim(*(other.encode(texts, convert_to_tensor=True) for texts in (FIRST, SECOND)))
        if len(cosines.unique()) > 1:
            assert found[-1 - layer] == pytest.approx(100 * spearmanr(cosines.cpu(), SCORES).statistic, abs=0.5)


def test_the_default_prompt_is_read_as_encode_reads_it(decoder: str) -> None:
    told = {"prompts": {"query": INSTRUCTION}, "default_prompt_name": "query"}
    encoder = convert(decoder, "e5-mistral", dtype=torch.float32, measure=False, **told)
    cosines = pairwise_cos_sim(*(encoder.encode(texts, convert_to_tensor=True) for texts in (FIRST, SECOND)))
    expected = 100 * spearmanr(cosines.cpu(), SCORES).statistic
    assert layer_scores(encoder, FIRST, SECOND, SCORES)[0] == pytest.approx(expected, abs=0.5)


def test_the_encoder_is_left_as_it_was(decoder: str) -> None:
    encoder = convert(decoder, "prompteol", measure=False)
    before = encoder.encode(FIRST[0], convert_to_tensor=True)
    layer_scores(encoder, FIRST, SECOND, SCORES)
    assert torch.equal(encoder.encode(FIRST[0], convert_to_tensor=True), before)
    assert "all_layer_embeddings" not in encoder.forward(encoder.preprocess(FIRST[:2]))


def test_what_has_no_single_layer_is_refused(decoder: str) -> None:
    with pytest.raises(ValueError, match="reads each text 2 times"):
        layer_scores(convert(decoder, "reverse-eol", measure=False), FIRST, SECOND, SCORES)
    with pytest.raises(ValueError, match="two different scores"):
        layer_scores(convert(decoder, "prompteol", measure=False), FIRST, SECOND, [1.0] * len(FIRST))


def test_the_command_names_the_best_layer(decoder: str, tmp_path: Path) -> None:
    dev = tmp_path / "dev.csv"
    with dev.open("w", newline="") as file:
        csv.writer(file).writerows(
            [("sentence1", "sentence2", "score"), *zip(FIRST, SECOND, map(str, SCORES), strict=True)]
        )
    found = json.loads(succeed("evaluate", "layers", decoder, "--dev", dev, "--limit", "20", "--json").stdout)
    assert (
        found["pairs"] == 20
        and max(score for score in found["spearman"].values() if score is not None)
        == (found["spearman"][str(found["best"])])
    )
    shown = succeed("evaluate", "layers", decoder, "--dev", dev).stdout
    assert "best" in shown and "the model's output" in shown and "the embeddings" in shown
