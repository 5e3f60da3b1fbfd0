"""The page over HTTP. It needs Starlette and uvicorn, which `make test-integrations` has."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
from typer.testing import CliRunner

from st_llm2vec import decoder_path
from st_llm2vec.cli import app
from st_llm2vec.playground.models import Models

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from starlette.testclient import TestClient  # noqa: E402

from st_llm2vec.playground import server  # noqa: E402
from st_llm2vec.playground.server import LARGEST, build_app, is_loopback, serve_page  # noqa: E402

SENT = {"query": "a bird", "passages": "A bird sings.\nIt rains.", "model": "stories", "recipe": "echo"}


@pytest.fixture(scope="module")
def client(models: Models) -> TestClient:
    return TestClient(build_app(models), base_url="http://127.0.0.1:7860")


def test_the_page_names_no_other_machine(client: TestClient) -> None:
    for path in ("/", "/page.css", "/page.js"):
        found = client.get(path)
        assert found.status_code == 200
        assert "default-src 'none'" in found.headers["content-security-policy"]
        assert re.findall(r"https?://|//\w+\.\w+|@import|url\(", found.text) == []


def test_comparing_answers_with_the_pieces(client: TestClient) -> None:
    found = client.post("/compare", json=SENT)
    assert found.status_code == 200
    assert set(found.json()) == {"nearest", "read", "similar", "words"}
    assert client.post("/compare", json={**SENT, "model": "/etc"}).json().keys() == {"nearest"}


@pytest.mark.parametrize(
    ("sent", "sentence"),
    [
        ({"json": {**SENT, "query": " "}}, "The query is empty"),
        ({"json": [1]}, "The request is no JSON object"),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, "The request is no JSON"),
        ({"content": b'{"query": "a"}', "headers": {"content-type": "text/plain"}}, "send application/json"),
        ({"content": b" " * (LARGEST + 1), "headers": {"content-type": "application/json"}}, "Shorten the texts"),
    ],
)
def test_mistakes_are_said(client: TestClient, sent: dict, sentence: str) -> None:
    found = client.post("/compare", **sent)
    assert found.status_code == 400
    assert sentence in found.json()["error"]


def test_tabs_at_once_get_their_own_answers(client: TestClient) -> None:
    recipes = ("echo", "llm2vec", "prompteol")
    alone = [client.post("/compare", json={**SENT, "recipe": one}).json() for one in recipes]
    assert len({one["nearest"] for one in alone}) == 3
    with ThreadPoolExecutor(6) as pool:
        found = pool.map(lambda one: client.post("/compare", json={**SENT, "recipe": one}).json(), recipes * 2)
    assert list(found) == alone * 2


def test_other_names_are_refused_on_the_loopback_interface_only(models: Models) -> None:
    assert TestClient(build_app(models), base_url="http://evil.example").get("/").status_code == 400
    for name in ("localhost:1", "127.0.0.1"):
        assert TestClient(build_app(models), base_url=f"http://{name}").get("/").status_code == 200
    assert TestClient(build_app(models, "0.0.0.0"), base_url="http://my.machine").get("/").status_code == 200
    assert [is_loopback(one) for one in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "my.machine")] == [True] * 3 + [
        False
    ] * 2


def test_a_taken_port_is_said(models: Models) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ValueError, match="Choose another --port"):
        serve_page(models, "127.0.0.1", taken.getsockname()[1], lambda address: None)


def test_the_command_says_where_and_warns_beyond_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "serve_page", lambda models, host, port, ready: ready(f"http://{host}:{port}"))
    done = CliRunner().invoke(app, ["demo", "--web"])
    assert done.exit_code == 0 and "http://127.0.0.1:7860" in done.stdout and "password" not in done.stderr
    done = CliRunner().invoke(app, ["demo", "--web", "--host", "0.0.0.0", "--port", "7"])
    assert done.exit_code == 0 and "http://0.0.0.0:7" in done.stdout
    assert "It has no password" in " ".join(done.stderr.split())


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted() -> None:
    command = [sys.executable, "-m", "st_llm2vec", "demo", "--web", "--port", "0", "--decoder", decoder_path()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
        try:
            assert serving.stdout is not None
            address = re.search(r"http://127\.0\.0\.1:\d+", serving.stdout.readline())[0]
            with urllib.request.urlopen(address, timeout=60) as answered:
                assert "Recipes side by side" in answered.read().decode()
            serving.send_signal(signal.SIGINT)
            assert serving.wait(60) == 0
        finally:
            serving.kill()
