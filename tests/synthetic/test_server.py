"""A whole run against a server that misbehaves: the data is complete, without repetitions, and nothing is paid twice."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from st_llm2vec.data import build_training_data, read_mixture
from st_llm2vec.data.overlap import near_pairs, repeated
from st_llm2vec.synthetic import Asking, ChatModel, SyntheticSettings, generate_data, open_chat_model
from st_llm2vec.synthetic.asking import SEED_DIGITS

from ..conftest import but_first
from ..promises import Promise
from .chat_server import TROUBLES, ChatServer, PlainClient, serving

SETTINGS = SyntheticSettings.of(
    "small", tasks=12, examples=40, groups=["short-long", "long-short", "long-long", "sts"], most=6
)
ASKING = Asking(concurrency=8, wait=0.01, seeded=True)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serving(ChatServer(trouble=0.5, broken=0.4)) as running:
        yield running


def client(kind: str, server: ChatServer) -> ChatModel:
    if kind == "plain":
        return ChatModel(PlainClient(port=server.server_port), "test-chat", "object")
    pytest.importorskip("langchain_openai")
    return open_chat_model("test-chat", SETTINGS, base_url=server.url)


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    return {file.stem: [json.loads(line) for line in file.open()] for file in sorted(folder.glob("*-*.jsonl"))} | {
        "sts": [json.loads(line) for line in (folder / "sts.jsonl").open()]
    }


@pytest.mark.parametrize(("kind", "structured"), [("plain", False), ("openai", True), ("openai", False)])
def test_the_data_is_complete_and_without_repetitions(
    kind: str, structured: bool, server: ChatServer, tmp_path: Path
) -> None:
    asking = Asking(**{**vars(ASKING), "structured": structured})
    report = generate_data(client(kind, server), tmp_path / "out", SETTINGS, asking)
    assert report["complete"] and report["rows"] == 40 and not report["unanswered"]
    assert len(set(server.met) & set(TROUBLES)) >= 4 and 1 < server.most_at_once <= 8
    assert max(server.paid.values()) == 1 and sum(server.paid.values()) == report["requests"]
    if not structured:
        reasons = {reason for one in report["examples"].values() for reason in (*one["unreadable"], *one["left out"])}
        assert {"refused", "unreadable", "repeated"} <= reasons, "broken JSON was repaired, the rest left out"
    assert report["tokens"]["input"] > 0 and report["tokens"]["output"] > 0
    for name, rows in rows_of(tmp_path / "out").items():
        queries = [row["query"] for row in rows]
        assert len(rows) == 10 and repeated(queries) == [] and list(near_pairs(queries)) == [], name
        assert all(row.get("instruction") or name == "sts" for row in rows)
    data = build_training_data(read_mixture(tmp_path / "out/mixture.yaml").sources)
    assert {name: len(one) for name, one in data.dataset.items()} == dict.fromkeys(data.dataset, 10)


def test_a_server_without_schemas_is_asked_in_words(tmp_path: Path) -> None:
    with serving(ChatServer(structured=False)) as server:
        report = generate_data(client("openai", server), tmp_path / "out", SETTINGS, ASKING)
        assert report["complete"] and max(server.paid.values()) == 1


def kept_in(folder: Path) -> list[str]:
    """The requests whose answers are kept."""
    file = folder / "requests.jsonl"
    lines = file.read_bytes().splitlines(keepends=True) if file.is_file() else []
    return [json.loads(line)["request"] for line in lines if line.endswith(b"\n")]


def run_until(answered: int, server: ChatServer, work: Callable[[], object]) -> bool:
    """Do the work in a process that is killed once the server has answered so many; whether it was killed at all."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    last = sum(server.paid.values()) + answered
    while sum(server.paid.values()) < last:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            assert os.waitstatus_to_exitcode(status) == 0
            return False
        time.sleep(0.0005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return True


@pytest.mark.promise(Promise.RESUMED)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked and killed, which Windows cannot")
@pytest.mark.parametrize("seed", but_first(range(6)))
def test_a_killed_run_goes_on_and_pays_for_no_answer_twice(
    seed: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    draws = random.Random(seed)
    with serving(ChatServer(trouble=0.3, broken=0.4)) as server:
        model = client("plain", server)
        kills, kept = 0, {}
        while run_until(
            draws.randrange(1, 30), server, lambda: generate_data(model, tmp_path / "out", SETTINGS, ASKING)
        ):
            kills += 1
            paid = {number: count for (_, number), count in server.paid.items()}
            kept |= {one: paid[int(one[:SEED_DIGITS], 16)] for one in kept_in(tmp_path / "out") if one not in kept}
        assert kills >= 2 and kept
        paid = {number: count for (_, number), count in server.paid.items()}
        assert {one: paid[int(one[:SEED_DIGITS], 16)] for one in kept} == kept, "what is kept is not asked for again"
        twice = sum(count - 1 for count in paid.values())
        assert twice <= kills * ASKING.concurrency, "what was on its way may be paid again, and nothing else"
    with serving(ChatServer(broken=0.4)) as server:
        generate_data(client("plain", server), tmp_path / "whole", SETTINGS, ASKING)
    assert rows_of(tmp_path / "out") == rows_of(tmp_path / "whole")
    record_property("cases", kills)
    record_property(
        "figure", f"most answers that were on their way at a kill and were paid for again {twice / kills:.1f}"
    )
