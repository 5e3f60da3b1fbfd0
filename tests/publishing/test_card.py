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
from ..stand_ins import stand_in

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


@pytest.mark.parametrize(("given", "whose"), [(True, "as its publisher says"), (False, "that of the base model")])
def test_the_card_says_whose_the_licence_is(encoder, given: bool, whose: str) -> None:
    found = card(encoder, None, licence={"license": "mit"}, licence_given=given)
    assert f"`mit`, {whose}" in found.text and found.data.license == "mit"


def test_the_card_says_that_a_saved_instruction_was_not_trained_with(encoder) -> None:
    pairs = {"name": "supervised", "method": "Supervised", "data": {"path": "p.jsonl"}}
    said = "Its saved instruction for a query was in none of the pairs"
    for stages, expected in (
        ([pairs], True),
        ([{**pairs, "instructions": {"query": ["Find it:"], "document": []}}], False),
        ([{"name": "simcse", "method": "SimCSE"}], False),
    ):
        assert (said in card(encoder, replace(encoder.manifest, stages=stages)).text) == expected


def test_the_card_says_where_an_empty_text_has_no_vector(encoder, tmp_path: Path) -> None:
    said = "An empty text has no token to read"
    without_bos = convert(stand_in("smollm2", tmp_path / "smollm2"), "llm2vec", measure=False)
    assert said in card(without_bos, None).text and said not in card(encoder, None).text


def test_the_card_of_an_encoder_that_keeps_another_instruction_than_it_was_trained_with(encoder) -> None:
    pairs = {"name": "supervised", "method": "Supervised", "instructions": {"query": ["Find it:"], "document": []}}
    found = card(encoder, replace(encoder.manifest, stages=[pairs])).text
    assert "without it, queries get the saved prompt, and other vectors than in training" in found


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
        ("dev set of the stage without a name", 0.81),
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
        ("dev set of the stage simcse", "sts_spearman_cosine", 0.7)
    ]


def supervised(**record: object) -> dict[str, object]:
    """The record of a stage that was trained with an instruction."""
    data = [{"path": "pairs.jsonl", "query_instruction": "Find the answer:"}]
    return {"name": "supervised", "data": data, "rows": {"train": 1234}, **record}


def trained(encoder, *stages: dict[str, object]) -> ModelCard:
    encoder.manifest = replace(encoder.manifest, stages=list(stages))
    return card(encoder, encoder.manifest, results=results_of(encoder))


@pytest.mark.parametrize(("recipe", "blank"), [("llm2vec", " "), ("e5-mistral", "")])
def test_an_instruction_that_was_trained_and_is_not_kept_is_given_to_the_reader(
    decoder: str, recipe: str, blank: str
) -> None:
    encoder = convert(decoder, recipe)
    prompt = json.dumps(f"Find the answer:{blank}")
    found = trained(encoder, supervised()).text
    assert f'encode_query(["How is a violin made?"], prompt={prompt})' in found
    assert f"- `{prompt}`" in found and "before queries, which is not among its saved prompts" in found
    assert f'query_encode_kwargs={{"prompt": {prompt}}}' in found and f"query_instruction={prompt}" in found
    assert "has no prompts" not in found
    assert ("belongs to it, and no text may begin with one" in found) == bool(blank)
    of_a_mixture = {"query": ["Find the answer:", "Find the same:"], "document": ["A passage:"]}
    found = trained(encoder, supervised(data={"mixture": "mine"}, instructions=of_a_mixture)).text
    assert f'- `"Find the same:{blank}"`' in found and f'"A passage:{blank}"' in found


def test_an_instruction_that_is_kept_is_told_once_among_the_prompts(decoder: str) -> None:
    encoder = convert(decoder, "llm2vec", prompts={"query": "Find the answer:"})
    found = trained(encoder, supervised()).text
    assert "put the prompt before" not in found  # which no server leaves out of the pooling
    assert "not among its saved prompts" not in found and "], prompt=" not in found


def test_without_prompts_nothing_is_said_to_be_put_before_a_query(decoder: str) -> None:
    found = trained(convert(decoder, "mean")).text
    assert "has no prompts" in found and "know no prompts" not in found and "takes `query`" not in found
    assert "Other servers embed the string that they are sent. What each of them gives" in found
    prompted = trained(convert(decoder, "mean", prompts={"query": INSTRUCTION})).text
    assert "has no prompts" not in prompted and "put the prompt before each text that takes one" in prompted


def test_a_dev_set_is_named_and_said_to_have_chosen_the_checkpoint(encoder) -> None:
    found = {
        "metric": "sts_spearman_cosine",
        "before": 0.5,
        "after": 0.7,
        "step": 200,
        "curve": [[100, 0.6], [200, 0.7]],
    }
    settings = {"evaluation": {"path": "/home/ann/dev.csv"}, "keep_best": True, "max_length": 64}
    told = trained(encoder, supervised(evaluation=found, settings=settings)).text
    assert [(one.dataset_name, one.metric_value) for one in results_of(encoder)] == [("dev.csv", 0.7)]
    assert "| dev.csv (chose the checkpoint) | sts_spearman_cosine | 0.7000 |" in told
    assert "`dev.csv` chose the checkpoint of the stage supervised (sts_spearman_cosine: 0.5000 before, 0.7000" in told
    watched = {**settings, "keep_best": False}
    assert "chose the checkpoint" not in trained(encoder, supervised(evaluation=found, settings=watched)).text
    alone = {**found, "curve": [[0, 0.5], [200, 0.7]]}
    assert "chose the checkpoint" not in trained(encoder, supervised(evaluation=alone, settings=settings)).text


def test_rows_and_limits_are_those_of_the_records(encoder) -> None:
    told = trained(encoder, supervised(settings={"max_length": 64})).text
    assert "| rows | 1,234 |" in told and "not trained" not in told
    for limit in ("longer than 512 tokens", "texts of at most 64 tokens", "Which languages", "weights are in float32"):
        assert limit in told.split("## Limitations")[1], limit
    assert "| rows | 30 (nq 10, sts 20) |" in trained(encoder, supervised(rows={"nq": 10, "sts": 20})).text
    assert "It is not trained" in trained(encoder).text
