"""A writable Hub on loopback that this process's own client talks to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import hf_api

from st_llm2vec import convert

from ..conftest import INSTRUCTION
from ..elsewhere import read_here
from ..hub_server import Hub, serve_hub
from ..hub_store import User

TOKEN, READER, STRANGER = "hf_writer", "hf_reader", "hf_stranger"
USERS = {
    TOKEN: User("ann", organisations=("org",)),
    READER: User("ann", organisations=("org",), may_write=False),
    STRANGER: User("bob"),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The Hub, empty; the client's waits between attempts are skipped."""
    constants = huggingface_hub.constants
    with serve_hub(users=USERS) as served:
        template = served.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "ENDPOINT", served.url)
        monkeypatch.setattr(hf_api.api, "endpoint", served.url)  # it was read when huggingface_hub was imported
        monkeypatch.setattr("transformers.utils.hub._hf_api", None)  # the same, at whatever asked the Hub first
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)  # of this machine's Hub, whatever the environment says
        monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield served


@pytest.fixture
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verify in this process, for tests of what else publishing does; a new process takes seconds."""
    for module in ("st_llm2vec.publishing.check", "st_llm2vec.checking.doors"):
        monkeypatch.setattr(f"{module}.read_without_package", read_here)


@pytest.fixture(scope="session")
def folder(decoder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete encoder with a card, ready to be sent."""
    path = tmp_path_factory.mktemp("published") / "encoder"
    convert(decoder, "llm2vec", max_length=128, prompts={"query": INSTRUCTION}).save_pretrained(str(path))
    return path
