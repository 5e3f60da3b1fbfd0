"""Many requests at a time: errors that pass are waited for, others stop the run with a sentence, and answers are kept."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel

from st_llm2vec.synthetic import Asking, SyntheticSettings
from st_llm2vec.synthetic.asking import Asked
from st_llm2vec.synthetic.groups import GROUPS
from st_llm2vec.synthetic.journal import Journal
from st_llm2vec.synthetic.plan import ChatRequest, example_request

from .chat_server import StatusError
from .writers import ScriptedChat

SETTINGS = SyntheticSettings()
REQUESTS = [example_request(GROUPS["sts"], number, [], SETTINGS) for number in range(12)]


class ConnectTimeout(Exception):
    """As httpx calls it."""


def ask(folder: Path, model: BaseChatModel, requests: list[ChatRequest] = REQUESTS, **changes: Any) -> Asked:
    with Journal(folder).held() as journal:
        asked = Asked(model, "scripted", journal, SETTINGS, Asking(**{"wait": 0.001, **changes}))
        asyncio.run(asked.ask(requests))
    return asked


def failing(times: int, error: Callable[[], Exception]) -> ScriptedChat:
    """Each prompt fails so many times before it is answered."""
    seen: Counter[str] = Counter()

    def script(prompt: str) -> Any:
        seen[prompt] += 1
        return error() if seen[prompt] <= times else f'{{"S1": "{len(prompt)}"}}'

    return ScriptedChat(script=script)


@pytest.mark.parametrize(
    "error",
    [lambda: StatusError(429, {}), lambda: StatusError(503, {}), ConnectTimeout, ConnectionResetError, TimeoutError],
)
def test_errors_that_pass_are_waited_for(error: Callable[[], Exception], tmp_path: Path) -> None:
    model = failing(2, error)
    asked = ask(tmp_path, model)
    assert len(model.prompts) == 36 and asked.made == 12 and sum(asked.errors.values()) == 24
    ask(tmp_path, model)
    assert len(model.prompts) == 36, "what is answered is not asked for again"


def test_a_server_says_how_long_to_wait(tmp_path: Path) -> None:
    began = time.monotonic()
    ask(tmp_path, failing(1, lambda: StatusError(429, {"retry-after": "0.3"})), REQUESTS[:1])
    assert time.monotonic() - began >= 0.3


def test_a_request_that_no_attempt_gets_through_is_left_to_the_next_run(tmp_path: Path) -> None:
    lost = REQUESTS[3].prompt

    async def script_late(prompt: str) -> Any:
        await asyncio.sleep(0.02)
        return StatusError(500, {}) if prompt == lost else "an answer"

    model = ScriptedChat(script=script_late)
    assert ask(tmp_path, model, attempts=3, concurrency=2).made == 11
    assert Counter(model.prompts)[lost] == 3
    again = ScriptedChat(script=lambda prompt: "an answer")
    assert ask(tmp_path, again).made == 1 and again.prompts == [lost]


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (StatusError(401, {}), ValueError, "scripted cannot be asked: status 401. 0 answers are kept"),
        (StatusError(404, {}), ValueError, "cannot be asked"),
        (StatusError(400, {}), ValueError, "cannot be asked"),
        (TypeError("no such argument"), ValueError, "no such argument"),
        (StatusError(503, {}), OSError, "does not answer, after 4 attempts"),
        (ConnectionRefusedError("nobody is there"), OSError, "nobody is there"),
    ],
)
def test_what_does_not_pass_stops_the_run(error: Exception, kind: type[Exception], words: str, tmp_path: Path) -> None:
    with pytest.raises(kind, match=words):
        ask(tmp_path, ScriptedChat(script=lambda prompt: error), attempts=4)


def test_a_request_that_the_server_refuses_alone_is_passed_over(tmp_path: Path) -> None:
    refused = REQUESTS[5].prompt
    model = ScriptedChat(script=lambda prompt: StatusError(400, {}) if prompt == refused else "an answer")
    assert ask(tmp_path, model, concurrency=1).made == 11


def test_no_more_are_on_their_way_than_were_asked_for(tmp_path: Path) -> None:
    now, most = 0, 0

    async def script(prompt: str) -> str:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.005)
        now -= 1
        return "an answer"

    ask(tmp_path, ScriptedChat(script=script), concurrency=4)
    assert most == 4


def test_no_more_begin_in_a_second_than_were_asked_for(tmp_path: Path) -> None:
    began = time.monotonic()
    ask(tmp_path, ScriptedChat(), per_second=40)
    assert time.monotonic() - began >= 11 / 40


def test_an_answer_that_does_not_come_is_asked_for_again(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    async def script(prompt: str) -> str:
        seen[prompt] += 1
        await asyncio.sleep(30 if seen[prompt] == 1 else 0)
        return "an answer"

    asked = ask(tmp_path, ScriptedChat(script=script), REQUESTS[:2], timeout=0.05)
    assert asked.made == 2 and asked.errors == {"TimeoutError": 2}


def test_answers_on_their_way_are_waited_for_when_it_is_stopped(tmp_path: Path) -> None:
    started: list[str] = []

    async def script(prompt: str) -> str:
        started.append(prompt)
        await asyncio.sleep(0.05)
        return "an answer"

    async def stopped(asked: Asked) -> None:
        running = asyncio.ensure_future(asked.ask(REQUESTS))
        while len(started) < 3:
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    with Journal(tmp_path).held() as journal:
        asked = Asked(ScriptedChat(script=script), "scripted", journal, SETTINGS, Asking(concurrency=3))
        asyncio.run(stopped(asked))
        assert len(journal) == len(started) == 3


def test_answers_on_their_way_are_waited_for_when_one_fails(tmp_path: Path) -> None:
    wrong = REQUESTS[0].prompt

    async def script(prompt: str) -> Any:
        await asyncio.sleep(0 if prompt == wrong else 0.05)
        return StatusError(401, {}) if prompt == wrong else "an answer"

    with pytest.raises(ValueError, match="status 401"):
        ask(tmp_path, ScriptedChat(script=script), concurrency=4)
    assert len((tmp_path / "requests.jsonl").read_text().splitlines()) == 3


class Structured(ScriptedChat):
    """Knows schemas, as far as it says so."""

    knows: bool = True

    def with_structured_output(self, schema: Any, *, include_raw: bool = False, **kwargs: Any) -> Any:
        from langchain_core.runnables import RunnableLambda

        assert include_raw and schema["required"] == ["S1", "S2", "S3"]

        async def run(prompt: str) -> Any:
            if not self.knows:
                raise StatusError(400, {})
            return {"raw": await self.ainvoke(prompt), "parsed": {"S1": "a"}, "parsing_error": None}

        return RunnableLambda(run)


@pytest.mark.parametrize("knows", [True, False])
def test_schemas_where_the_model_knows_them(knows: bool, tmp_path: Path) -> None:
    model = Structured(script=lambda prompt: "in words", knows=knows)
    with Journal(tmp_path).held() as journal:
        asked = Asked(model, "scripted", journal, SETTINGS, Asking(concurrency=4))
        asyncio.run(asked.ask(REQUESTS))
        assert {asked.answer(one).text for one in REQUESTS} == {'{"S1": "a"}' if knows else "in words"}
    assert len(model.prompts) == 12
