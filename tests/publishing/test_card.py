"""The model card: its metadata, its stages, and missing records."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from st_llm2vec import convert
from st_llm2vec.modules.attention import AttentionProbe
from st_llm2vec.publishing.card import model_card
from st_llm2vec.publishing.check import Check
from st_llm2vec.publishing.licence import licence_of, licence_of_card
from st_llm2vec.publishing.names import is_hub_name, public_name
from st_llm2vec.publishing.results import results_of, to_results
from st_llm2vec.recipe.manifest import Manifest
from st_llm2vec.serving.verdicts import verdicts

from ..conftest import INSTRUCTION

PROBE = AttentionProbe("sdpa", True, True, True, (True,), (True,))
CHECK = Check(24, 2, "float32", 1e-6, 3e-13, 2e-13, None, PROBE, {"transformers": "5.23.0"})
STAGES = [
    {
        "name": "mntp",
        "method": "MNTP",
        "data": [{"name": "Salesforce/wikitext", "rows": 100}, {"name": "local.txt"}],
        "settings": {"learning_rate": 5e-5, "lora": {"r": 16}, "unset": None},
        "steps": 1000,
        "merged": True,
    },
    {"name": "simcse"},
    {"data": "org/pairs", "evaluation": {"spearman": 0.81}},
]


@pytest.fixture
def encoder(decoder: str):
    return convert(decoder, "llm2vec", prompts={"query": INSTRUCTION})


def card(encoder, manifest: Manifest | None, **options: object) -> ModelCard:
    given = {"manifest": manifest, "custom": False, "licence": {}, **options}
    return ModelCard(model_card(encoder, "org/encoder", CHECK, verdicts(encoder, "org/encoder"), **given))


def test_the_card_says_where_instructions_need_this_package(decoder: str, encoder) -> None:
    """Where instruction and text are one string, plain Sentence Transformers takes the two for a sentence pair."""
    needs = "`[instruction, text]`, needs `st_llm2vec.load`"
    assert needs in card(encoder, None).text
    assert needs not in card(convert(decoder, "e5-mistral", prompts={"query": INSTRUCTION}), None).text


def test_metadata_and_stages(encoder) -> None:
    base = {"name": "meta-llama/Llama-3.2-1B", "architecture": "LlamaModel", "revision": "abc"}
    encoder.manifest = replace(encoder.manifest, base=base, stages=STAGES)
    licence = {"license": "other", "license_name": "llama3.2", "license_link": "https://example.org/licence"}
    results = [*to_results([{"task": "sts", "dataset": "STSBenchmark", "metric": "cosine_spearman", "value": 0.8}])]
    found = card(encoder, encoder.manifest, licence=licence, results=[*results, *results_of(encoder)])
    data = found.data
    assert data.base_model == "meta-llama/Llama-3.2-1B"
    assert (data.license, data.license_name, data.license_link) == tuple(licence.values())
    assert data.datasets == ["Salesforce/wikitext", "org/pairs"]
    assert {"llm2vec", "bidirectional", "sentence-transformers", "arxiv:2404.05961"} <= set(data.tags)
    assert data.library_name == "sentence-transformers" and data.pipeline_tag == "sentence-similarity"
    assert [(one.dataset_name, one.metric_value) for one in data.eval_results] == [
        ("STSBenchmark", 0.8),
        ("stage", 0.81),
    ]
    for expected in (
        "### Stage 1: mntp",
        "| steps | 1000 |",
        "| learning_rate | 5e-05 |",
        '| lora | {"r": 16} |',
        "| merged | yes |",
        "### Stage 2: simcse",
        "### Stage 3: unnamed",
        "[llama3.2](https://example.org/licence)",
        "cosine distance at most 3.0e-13",
        "bidirectional under sdpa, with and without padding",
        INSTRUCTION,
    ):
        assert expected in found.text, expected
    assert "unset" not in found.text


def test_records_that_are_missing_are_not_invented(encoder) -> None:
    for manifest in (None, replace(encoder.manifest, base={}, stages=[])):
        encoder.manifest = manifest
        found = card(encoder, manifest)
        assert found.data.base_model is None and found.data.license is None
        assert "Stage" not in found.text and "## Evaluation" not in found.text


def test_results_in_all_their_forms() -> None:
    mteb = {"task_name": "STS17", "scores": {"test": [{"hf_subset": "en-en", "main_score": 0.9}]}}
    found = to_results([mteb, {"sts-dev_spearman_cosine": 0.7}])
    assert [(one.dataset_name, one.dataset_split, one.metric_value) for one in found] == [
        ("MTEB STS17 (en-en)", "test", 0.9),
        ("evaluator", None, 0.7),
    ]


def test_the_licence_is_that_of_the_base(tmp_path: Path, decoder: str) -> None:
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: llama3\n---\n")
    assert licence_of({"name": str(tmp_path)}) == {"license": "other", "license_name": "llama3"}
    assert licence_of({"name": decoder}) == {"license": "apache-2.0"}
    assert licence_of({"name": "org/x", "license": "mit"}) == {"license": "mit"}
    (tmp_path / "README.md").write_text("---\n: [\n---\n")
    assert licence_of_card(tmp_path / "README.md") == {} == licence_of_card(tmp_path / "none.md") == licence_of({})


def test_names_of_local_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = "/x/hub/models--meta-llama--Llama-3.2-1B/snapshots/0123abc"
    assert public_name(cached) == "meta-llama/Llama-3.2-1B"
    assert public_name("C:\\models\\mine") == "mine" and public_name("./mine") == "mine"
    assert public_name("org/name") == "org/name" and is_hub_name("org/name")
    assert public_name("data/train.jsonl.gz") == "train.jsonl.gz" and not is_hub_name("data/train.jsonl")
    assert public_name("https://example.org/train.csv") == "https://example.org/train.csv"
    (tmp_path / "org/name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert public_name("org/name") == "name" and not is_hub_name("org/name")


def test_the_card_says_what_other_frameworks_lose_and_the_line_that_mends_it(encoder) -> None:
    found = card(encoder, encoder.manifest).text
    assert 'query_encode_kwargs={"prompt_name": "query"}' in found and "lose them and have other vectors" in found
    assert "replaces line breaks" in found and 'STLLM2VecEmbeddings(model="org/encoder")' in found
    assert "puts empty prompts in the place of the saved ones" in found
    assert f"query_instruction={json.dumps(encoder.prompts['query'])}" in found
    encoder.prompts = {"query": "", "document": ""}
    found = card(encoder, encoder.manifest).text
    assert "replaces line breaks" in found
    assert "prompt_name" not in found and "lose them" not in found and "empty prompts" not in found


def test_documents_have_the_prompt_that_encode_document_takes(encoder) -> None:
    encoder.prompts = {"passage": "A passage: ", "corpus": "Another: "}
    found = card(encoder, encoder.manifest).text
    assert 'encode_kwargs={"prompt_name": "passage"}' in found and 'query_encode_kwargs={"prompt_name": None}' in found
    assert 'text_instruction="A passage: "' in found


def test_what_evaluating_while_training_found_is_one_result(encoder) -> None:
    found = {"metric": "sts_spearman_cosine", "before": 0.5, "after": 0.7, "step": 200, "curve": [[0, 0.5], [200, 0.7]]}
    encoder.manifest = replace(encoder.manifest, stages=[{"name": "simcse", "evaluation": found}])
    assert [(one.dataset_name, one.metric_type, one.metric_value) for one in results_of(encoder)] == [
        ("simcse", "sts_spearman_cosine", 0.7)
    ]
