"""Trained, published, served by vLLM from the Hub, and asked by three clients of OpenAI's: the vectors of the encoder."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pytest

from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.texts import TEXTS
from st_llm2vec.proof.tolerances import SERVED_VECTORS

from ..hub_server import serve_hub
from ..publishing.conftest import TOKEN, USERS
from .vllm_server import PLACE, find_vllm, vllm_server

pytestmark = [
    pytest.mark.served,
    pytest.mark.skipif(find_vllm() is None, reason=f"vLLM is not at hand; {PLACE} names its environment"),
]
NAME = "org/served"
INSTRUCTION = "Find the passage that answers:"
TRAIN_AND_PUBLISH = """
import sys
import numpy as np
from datasets import Dataset
from sentence_transformers import SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from st_llm2vec import convert, decoder_path, publish
from st_llm2vec.proof.texts import TEXTS
from st_llm2vec.serving.verdicts import verdicts

out, name, instruction = sys.argv[1:]
encoder = convert(decoder_path(), "mean", prompts={"query": instruction})
before = encoder.encode_query(TEXTS)
things = ["mill", "inn", "oak", "ship", "violin", "clock", "harbour", "garden"]
rows = Dataset.from_dict({"anchor": [f"where is the {one}?" for one in things], "positive": [f"The {one} is there." for one in things]})
arguments = SentenceTransformerTrainingArguments(
    out + "/run", max_steps=4, per_device_train_batch_size=4, learning_rate=1e-3, use_cpu=True, report_to="none", save_strategy="no",
    prompts={"anchor": encoder.prompts["query"]},
)
SentenceTransformerTrainer(encoder, arguments, train_dataset=rows, loss=MultipleNegativesRankingLoss(encoder)).train()
publish(encoder, name)
command = next(one.command for one in verdicts(encoder, name) if one.server == "vLLM")
np.savez(out + "/there.npz", query=encoder.encode_query(TEXTS), document=encoder.encode_document(TEXTS), before=before,
         command=command, prompt=encoder.prompts["query"])
"""


@dataclass
class Served:
    """vLLM's address, the query prompt, and the encoder's vectors before it was published."""

    url: str
    prompt: str
    vectors: dict[str, np.ndarray]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = tmp_path_factory.mktemp("served")
    with serve_hub(users=USERS) as hub:
        environment = {**hub.environment(home / "publisher"), "HF_TOKEN": TOKEN}
        command = [sys.executable, "-c", TRAIN_AND_PUBLISH, str(home), NAME, INSTRUCTION]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        with np.load(home / "there.npz") as found:
            there = dict(found)
        assert largest_cosine_distance(there["before"], there["query"]) > 1e-3, "training changed nothing"
        reader = {**hub.environment(home / "reader"), "HF_HUB_OFFLINE": "0"}
        with vllm_server(str(there["command"]), home / "vllm.log", reader) as url:
            assert hub.asked_for(NAME, "model.safetensors"), "vLLM took the weights from the Hub"
            yield Served(url, str(there["prompt"]), there)


def openai_client(url: str) -> Callable[[list[str]], np.ndarray]:
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=url, api_key="none")

    def embed(texts: list[str]) -> np.ndarray:
        return np.asarray([one.embedding for one in client.embeddings.create(model=NAME, input=texts).data])

    return embed


def langchain_client(url: str) -> Callable[[list[str]], np.ndarray]:
    langchain = pytest.importorskip("langchain_openai")
    # Else it cuts texts by the tokens of OpenAI's own models, and sends ids of those.
    client = langchain.OpenAIEmbeddings(model=NAME, base_url=url, api_key="none", check_embedding_ctx_length=False)
    return lambda texts: np.asarray(client.embed_documents(texts))


def llama_index_client(url: str) -> Callable[[list[str]], np.ndarray]:
    llama_index = pytest.importorskip("llama_index.embeddings.openai")
    client = llama_index.OpenAIEmbedding(model_name=NAME, api_base=url, api_key="none")
    return lambda texts: np.asarray(client.get_text_embedding_batch(texts))


@pytest.mark.parametrize("client", [openai_client, langchain_client, llama_index_client])
def test_clients_get_the_vectors(served: Served, client: Callable[[str], Callable[[list[str]], np.ndarray]]) -> None:
    embed = client(served.url)
    sent = [number for number, text in enumerate(TEXTS) if client is not llama_index_client or "\n" not in text]
    texts = [TEXTS[number] for number in sent]
    documents, queries = served.vectors["document"][sent], served.vectors["query"][sent]
    assert largest_cosine_distance(embed(texts), documents) < SERVED_VECTORS.full
    assert largest_cosine_distance(embed([served.prompt + text for text in texts]), queries) < SERVED_VECTORS.full
    assert largest_cosine_distance(documents, queries) > 1e-3, "a query without its prompt"


def test_llama_index_reads_line_breaks_as_blanks(served: Served) -> None:
    """Its class replaces them before it sends a text: docs/serving.md says so."""
    embed, plain = llama_index_client(served.url), openai_client(served.url)
    assert largest_cosine_distance(embed(["two\nlines"]), plain(["two lines"])) < SERVED_VECTORS.full


def test_a_query_class_of_a_framework_sends_what_it_is_given(served: Served) -> None:
    """Its ``embed_query`` puts no prompt before a text."""
    langchain = pytest.importorskip("langchain_openai")
    client = langchain.OpenAIEmbeddings(
        model=NAME, base_url=served.url, api_key="none", check_embedding_ctx_length=False
    )
    found = np.asarray([client.embed_query(served.prompt + TEXTS[0])])
    assert largest_cosine_distance(found, served.vectors["query"][:1]) < SERVED_VECTORS.full
