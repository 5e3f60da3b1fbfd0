"""There and back over the Hub's own protocol: published by the real client, read where this package is missing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from ..conftest import INSTRUCTION, TEXTS, cosine_distance
from ..elsewhere import BLOCK_THE_PACKAGE
from ..hub_server import Hub, serve_hub
from .conftest import TOKEN, USERS

PUBLISH = """
import sys
import numpy as np
from st_llm2vec import convert, load, publish
from st_llm2vec.publishing.card import DOCUMENTS, QUERY

decoder, out, instruction, texts = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4].split("|")
encoder = convert(decoder, "llm2vec", max_length=128, prompts={"query": instruction})
encoder.push_to_hub("org/portable", private=True)
custom = convert(decoder, "echo", max_length=128, prompts={"query": instruction})
publish(custom, "org/custom")
found = {}
for name, one in (("portable", encoder), ("custom", custom)):
    found[name] = np.stack([one.encode_document(texts), one.encode_query(texts)])
    found[f"{name} snippet"] = np.stack([one.encode_query(QUERY), *one.encode_document(DOCUMENTS)])
model = load("org/custom")
found["custom loaded"] = np.stack([model.encode_document(texts), model.encode_query(texts)])
np.savez(out, **found)
"""
READ = """
import sys
import numpy as np
from sentence_transformers import SentenceTransformer

out, texts = sys.argv[1], sys.argv[2].split("|")
found = {}
for name, code in zip(("portable", "custom"), sys.argv[3:]):
    exec(code)
    found[name] = np.stack([model.encode_document(texts), model.encode_query(texts)])
    found[f"{name} snippet"] = np.stack([queries[0], *documents])
np.savez(out, **found)
assert not any(name.startswith("st_llm2vec.") for name in sys.modules)
"""


@dataclass
class Published:
    """The Hub with both encoders, and their vectors before they were published: documents, then queries."""

    hub: Hub
    vectors: dict[str, np.ndarray]
    home: Path

    def run(self, script: str, *arguments: str, home: str = "home") -> subprocess.CompletedProcess[str]:
        """Run a script in a process that knows no other Hub."""
        return run_at(self.hub, script, self.home / home, *arguments)

    def card(self, repository: str) -> str:
        return self.hub.repositories[repository].files["README.md"].decode()


def run_at(hub: Hub, script: str, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**hub.environment(home), "HF_TOKEN": TOKEN}
    command = [sys.executable, "-c", script, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def published(decoder: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    home = tmp_path_factory.mktemp("round-trip")
    with serve_hub(users=USERS) as hub:
        done = run_at(hub, PUBLISH, home / "publisher", decoder, str(home / "there.npz"), INSTRUCTION, "|".join(TEXTS))
        assert done.returncode == 0, done.stderr
        with np.load(home / "there.npz") as vectors:
            yield Published(hub, dict(vectors), home)


@pytest.mark.slow
def test_there_and_back(published: Published) -> None:
    """What the cards say for Sentence Transformers is run as it stands, without this package."""
    out = published.home / "back.npz"
    codes = [snippets(published.card(f"org/{name}"))["sentence_transformers"] for name in ("portable", "custom")]
    done = published.run(BLOCK_THE_PACKAGE + READ, str(out), "|".join(TEXTS), *codes)
    assert done.returncode == 0, done.stderr
    with np.load(out) as found:
        assert set(found) == set(published.vectors) - {"custom loaded"}
        for name in found:
            assert cosine_distance(found[name], published.vectors[name]) < 1e-6, name
    repositories = published.hub.repositories
    assert repositories["org/portable"].private and not repositories["org/custom"].private
    assert all(len(one.branches["main"]) == 2 for one in repositories.values())
    assert not published.hub.asked_for("org/portable", ".py")
    assert cosine_distance(published.vectors["custom loaded"], published.vectors["custom"]) < 1e-6
    assert 'st_llm2vec.load("org/custom")' in snippets(published.card("org/custom"))["st_llm2vec"]


def snippets(card: str) -> dict[str, str]:
    """The card's Python, by the package that it imports first."""
    found = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    return {re.search(r"(?:from|import) (\w+)", code).group(1): code for code in found}


@pytest.mark.parametrize("name", ["portable", "custom"])
@pytest.mark.parametrize("package", ["langchain_huggingface", "llama_index.embeddings.huggingface"])
def test_stock_classes_of_other_frameworks_load_it(name: str, package: str, request: pytest.FixtureRequest) -> None:
    """As the card says, without this package; they give the encoder's vectors: the query, then the documents."""
    pytest.importorskip(package)
    published: Published = request.getfixturevalue("published")
    code = snippets(published.card(f"org/{name}"))[package.split(".")[0]]
    show = "\nimport json\nprint(json.dumps([list(map(float, one)) for one in [query, *documents]]))\n"
    done = published.run(BLOCK_THE_PACKAGE + code + show)
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout.splitlines()[-1]))
    assert cosine_distance(found, published.vectors[f"{name} snippet"]) < 1e-6
