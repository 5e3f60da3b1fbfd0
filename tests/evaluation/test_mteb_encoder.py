"""Encoders in MTEB itself, on a task of our own in memory: no network is needed."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from sentence_transformers import SentenceTransformer

from st_llm2vec import convert
from st_llm2vec.evaluation.mteb_encoder import PAPER, as_mteb, find_tasks, run_mteb
from st_llm2vec.evaluation.task_data import Pairs
from st_llm2vec.evaluation.task_encoder import TaskEncoder
from st_llm2vec.evaluation.task_scores import score
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.publishing.results import read_results

from ..cli.test_cli import loud_again, succeed  # noqa: F401

mteb = pytest.importorskip("mteb", reason="MTEB is not installed; `make test-integrations` has it")
FIRST = ["a cat sleeps", "the sea is blue", "a red car drives", "birds sing"]
SECOND = ["a cat is asleep", "he reads a book", "an automobile drives", "birds are singing"]
SCORES = [4.5, 0.0, 4.0, 5.0]
CORPUS = {"d1": "the fox sleeps", "d2": "iron melts", "d3": "a red car"}
ABOUT: dict[str, Any] = {
    "description": "made here",
    "dataset": {"path": "local/none", "revision": "1"},
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
    "modalities": ["text"],
}


def pairs_task() -> Any:
    class LocalPairs(mteb.abstasks.AbsTaskSTS):
        metadata = mteb.TaskMetadata(
            name="LocalPairs", type="STS", main_score="cosine_spearman", prompt="Find what says the same.", **ABOUT
        )
        min_score, max_score = 0, 5

        def load_data(self, **options: Any) -> None:
            rows = {"sentence1": FIRST, "sentence2": SECOND, "score": SCORES}
            self.dataset = DatasetDict(test=Dataset.from_dict(rows))
            self.data_loaded = True

    return LocalPairs()


def search_task() -> Any:
    class LocalSearch(mteb.abstasks.AbsTaskRetrieval):
        metadata = mteb.TaskMetadata(
            name="LocalSearch", type="Retrieval", main_score="ndcg_at_10", prompt={"query": "Find the text."}, **ABOUT
        )

        def load_data(self, **options: Any) -> None:
            corpus = [{"id": key, "title": "", "text": text} for key, text in CORPUS.items()]
            parts = {
                "corpus": Dataset.from_list(corpus),
                "queries": Dataset.from_list([{"id": "q1", "text": "who sleeps"}]),
                "relevant_docs": {"q1": {"d1": 1}},
                "top_ranked": None,
            }
            self.dataset = {"default": {"test": parts}}
            self.data_loaded = True

    return LocalSearch()


@pytest.fixture(scope="module")
def encoder(decoder: str) -> TextEncoder:
    return convert(decoder, "llm2vec", max_length=64)


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)


class Told(TextEncoder):
    """Writes down with which instruction each text is read."""

    told: list[tuple[str, str | None]]

    def preprocess(self, inputs: Any, prompt: Any = None, **kwargs: Any) -> Any:
        self.told += [(text, prompt) for text in inputs]
        return super().preprocess(inputs, prompt, **kwargs)


def test_a_task_of_our_own_is_scored_and_published(encoder: TextEncoder, offline: None, tmp_path: Path) -> None:
    (result,) = run_mteb(encoder, [pairs_task()], cache=tmp_path / "kept")
    (row,) = result["scores"]["test"]
    told = TaskEncoder(encoder, "Find what says the same:")
    assert 100 * row["main_score"] == pytest.approx(score(told, "sts", Pairs(FIRST, SECOND, SCORES))["spearman"])
    assert result["task_name"] == "LocalPairs"
    (tmp_path / "results.json").write_text(json.dumps([result], default=str))
    (published,) = read_results(tmp_path / "results.json")
    assert published.dataset_name == "MTEB LocalPairs" and published.metric_value == row["main_score"]
    (file,) = (tmp_path / "kept").rglob("LocalPairs.json")
    (kept,) = read_results(file)
    assert kept.metric_value == pytest.approx(row["main_score"], abs=1e-5)


def test_a_report_shows_what_mteb_has_kept(
    encoder: TextEncoder, offline: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("matplotlib")
    encoder.save(str(tmp_path / "encoder"))
    monkeypatch.setenv("MTEB_CACHE", str(tmp_path / "mteb"))
    monkeypatch.setattr("st_llm2vec.evaluation.mteb_encoder.find_tasks", lambda names: [pairs_task()])
    options = ["--report", tmp_path / "out", "--cache", tmp_path / "kept", "--mteb", "LocalPairs"]
    succeed("evaluate", tmp_path / "encoder", *options)
    (file,) = (tmp_path / "mteb").rglob("LocalPairs.json")
    (kept,) = read_results(file)
    assert f"| encoder | {100 * kept.metric_value:.1f} |" in (tmp_path / "out" / "report.md").read_text()


def test_scores_with_other_instructions_are_kept_apart(encoder: TextEncoder, offline: None) -> None:
    told = [as_mteb(encoder, instructions=one) for one in (None, {"STS": "Find:"}, {"STS": "Find:"}, {"STS": "Tell:"})]
    revisions = [one.mteb_model_meta.revision for one in told]
    assert revisions[1] == revisions[2] and len(set(revisions)) == 3


def test_results_are_kept_for_the_weights_that_have_them(encoder: TextEncoder, offline: None, tmp_path: Path) -> None:
    run_mteb(encoder, [pairs_task()], cache=tmp_path)
    written = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("LocalPairs.json")}
    run_mteb(encoder, [pairs_task()], cache=tmp_path)
    assert {file: file.stat().st_mtime_ns for file in tmp_path.rglob("LocalPairs.json")} == written
    length, encoder.max_seq_length = encoder.max_seq_length, 32
    run_mteb(encoder, [pairs_task()], cache=tmp_path)
    encoder.max_seq_length = length
    assert len(list(tmp_path.rglob("LocalPairs.json"))) == 2


@pytest.mark.parametrize(
    ("recipe", "instructions", "expected"),
    [
        ("llm2vec", None, "Find the text:"),
        ("e5-mistral", None, "Find the text."),
        ("e5-mistral", {"LocalSearch": "Search!"}, "Search!"),
        ("prompteol", None, None),
    ],
)
def test_queries_are_told_the_instruction_and_documents_are_not(
    recipe: str, instructions: dict[str, str] | None, expected: str | None, decoder: str, offline: None, tmp_path: Path
) -> None:
    encoder = convert(decoder, recipe, max_length=64)
    encoder.__class__, encoder.told = Told, []  # type: ignore[attr-defined]
    (result,) = run_mteb(encoder, [search_task()], instructions=instructions, cache=tmp_path)
    told: list[tuple[str, str | None]] = encoder.told  # type: ignore[attr-defined]
    assert {prompt or None for text, prompt in told if "who sleeps" in text} == {expected}
    documents = {prompt or None for text, prompt in told if any(one in text for one in CORPUS.values())}
    assert documents == {None}
    assert 0 <= result["scores"]["test"][0]["main_score"] <= 1


def test_what_mteb_is_told_of_the_encoder(encoder: TextEncoder, tmp_path: Path) -> None:
    meta = as_mteb(encoder, "org/mine").mteb_model_meta
    assert meta.name == "org/mine" and meta.use_instructions and meta.embed_dim == 192 and meta.max_tokens == 64
    assert meta.n_parameters == sum(one.numel() for one in encoder.parameters()) and len(meta.revision) == 40
    encoder.save(str(tmp_path / "plain"))
    plain = as_mteb(SentenceTransformer(str(tmp_path / "plain")))
    assert plain.mteb_model_meta.name.startswith("local/") and not plain.mteb_model_meta.use_instructions
    vectors = plain.encode([{"text": FIRST}], task_metadata=pairs_task().metadata, hf_split="test", hf_subset="default")
    assert np.allclose(vectors, encoder.encode(FIRST), atol=1e-5)


def test_tasks_by_name() -> None:
    found = find_tasks(["paper"])
    assert tuple(one.metadata.name for one in found) == PAPER and len(PAPER) == 15
    assert list(found[PAPER.index("STS17")].hf_subsets) == ["en-en"]
    assert len(find_tasks(["MTEB(eng, v2)"])) == 41
    with pytest.raises(ValueError, match="knows no task and no benchmark 'Guessing'"):
        find_tasks(["Guessing"])


def test_a_task_of_the_hub_is_a_sentence_while_offline(
    encoder: TextEncoder, offline: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="The data of the task STSBenchmark comes from the Hugging Face Hub"):
        run_mteb(encoder, find_tasks(["STSBenchmark"]), cache=tmp_path)
