"""A server on the loopback interface that speaks OpenAI's chat protocol, and misbehaves in every way that servers do."""

from __future__ import annotations

import http.client
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult

from .writers import drawn_from, write

TROUBLES = ("slow", "429", "500", "503", "dropped", "torn")
"""What may happen to a request before it is answered; ``slow`` is answered in the end."""


class ChatServer(ThreadingHTTPServer):
    """The server; what it answered to the end counts as paid.

    Args:
        trouble: The share of requests that meet trouble first.
        broken: The share of answers that are broken JSON, refusals, or the same as others.
        structured: Whether it knows ``response_format``.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, trouble: float = 0.0, broken: float = 0.0, structured: bool = True) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.trouble, self.broken, self.structured = trouble, broken, structured
        self.lock = threading.Lock()
        self.paid: Counter[tuple[str, int]] = Counter()
        self.asked: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.now, self.most_at_once = 0, 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients are killed here, which is no error of the server's."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def log_message(self, *arguments: object) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt, seed = body["messages"][-1]["content"], body.get("seed", 0)
        with server.lock:
            server.now += 1
            server.most_at_once = max(server.most_at_once, server.now)
            server.asked[prompt] += 1
            attempt = server.asked[prompt]
        try:
            self._serve(prompt, seed, attempt, "response_format" in body)
        finally:
            with server.lock:
                server.now -= 1

    def _serve(self, prompt: str, seed: int, attempt: int, structured: bool) -> None:
        server = self.server
        if structured and not server.structured:
            return self._send(400, {"error": {"message": "response_format is not supported"}})
        draws = drawn_from(prompt, attempt)
        # The third attempt is answered, so that every request is in the end.
        trouble = draws.choice(TROUBLES) if attempt < 3 and draws.random() < server.trouble else ""
        with server.lock:
            server.met[trouble or "well"] += 1
        if trouble == "slow":
            time.sleep(0.15)
        elif trouble.isdigit():
            return self._send(int(trouble), {"error": {"message": "try again"}}, {"Retry-After": "0.01"})
        elif trouble == "dropped":
            self.close_connection = True
            return self.connection.close()
        text = self._text(prompt, random.Random(f"{prompt} {seed}"), structured)
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(text.split()), "total_tokens": 1}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
        answer = {"id": "1", "object": "chat.completion", "created": 0, "model": "test-chat-1", "choices": [choice]}
        return self._send(200, {**answer, "usage": usage}, paid=(prompt, seed), torn=trouble == "torn")

    def _text(self, prompt: str, draws: random.Random, structured: bool) -> str:
        good = write(prompt, draws)
        if structured or draws.random() >= self.server.broken:
            return good
        way = draws.choice(["fenced", "cut", "words", "refused", "nothing", *["repeated"] * 4])
        with self.server.lock:
            self.server.met[way] += 1
        if way == "repeated":
            return write(prompt, drawn_from("the same, whatever is asked"))
        written = {
            "fenced": f"Here you are:\n```json\n{good}\n```\nAnything else?",
            "cut": good[:-2],
            "words": "This is one: the cat sat.",
            "refused": "I'm sorry, but I can't help with that.",
            "nothing": "",
        }
        return written[way]

    def _send(
        self,
        status: int,
        data: dict[str, Any],
        headers: dict[str, str] | None = None,
        paid: tuple[str, int] | None = None,
        torn: bool = False,
    ) -> None:
        payload = json.dumps(data).encode()
        self.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(payload)),
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        if torn:
            self.close_connection = True
            payload = payload[: len(payload) // 2]
        self.wfile.write(payload)
        self.wfile.flush()
        if paid is not None and not torn:
            with self.server.lock:
                self.server.paid[paid] += 1


@contextmanager
def serving(server: ChatServer) -> Iterator[ChatServer]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class StatusError(Exception):
    """As providers' libraries have it."""

    def __init__(self, status: int, headers: Any) -> None:
        super().__init__(f"status {status}")
        self.status_code, self.headers = status, headers


class PlainClient(BaseChatModel):
    """A chat model of one's own over the server, of the standard library alone."""

    port: int
    seed: int = 0

    @property
    def _llm_type(self) -> str:
        return "plain"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: Any = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        body = {
            "model": "test-chat",
            "messages": [{"role": "user", "content": str(messages[-1].text)}],
            "seed": self.seed,
        }
        connection.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        with connection.getresponse() as response:
            try:
                data = json.loads(response.read())
            except http.client.IncompleteRead as error:
                raise ConnectionError("the connection was dropped") from error
            if response.status != 200:
                raise StatusError(response.status, response.headers)
        connection.close()
        choice, usage = data["choices"][0], data["usage"]
        counts = UsageMetadata(
            input_tokens=usage["prompt_tokens"], output_tokens=usage["completion_tokens"], total_tokens=1
        )
        about = {"finish_reason": choice["finish_reason"], "model_name": data["model"]}
        message = AIMessage(choice["message"]["content"], usage_metadata=counts, response_metadata=about)
        return ChatResult(generations=[ChatGeneration(message=message)])
