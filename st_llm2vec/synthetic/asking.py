"""Requests to a chat model, many at a time: rate limits, errors that pass, and each answer kept as it comes."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from st_llm2vec.synthetic.journal import Answer, Journal
from st_llm2vec.synthetic.plan import ChatRequest
from st_llm2vec.synthetic.settings import SyntheticSettings

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

logger = logging.getLogger(__name__)

PASSES = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}
NOT_UNDERSTOOD = {400, 415, 422, 501}
PASSING = re.compile(
    r"Connect|Timeout|Transport|RateLimit|Overloaded|Unavailable|Throttl|ResourceExhausted|InternalServer"
)
"""Names of errors of providers' libraries that have no status."""
LONGEST_WAIT = 60.0
SEED_DIGITS = 7


@dataclass
class Asking:
    """How requests are made. None of it changes what is asked.

    Args:
        concurrency: How many requests are on their way at a time.
        per_second: How many begin in a second at the most; as many as can be by default.
        attempts: How often a request is made before it is given up.
        timeout: Seconds that an answer may take; ``None`` for no limit.
        wait: Seconds before the second attempt; each further one waits twice as long, up to a minute, or as long as the
            server says.
        structured: Whether answers are asked for as JSON of a schema, where the model can do that.
        seeded: Whether each request has a seed of its own, for models that have a field ``seed``.
    """

    concurrency: int = 8
    per_second: float | None = None
    attempts: int = 6
    timeout: float | None = 300.0
    wait: float = 1.0
    structured: bool = True
    seeded: bool = False

    def __post_init__(self) -> None:
        if min(self.concurrency, self.attempts) < 1 or (self.per_second is not None and self.per_second <= 0):
            raise ValueError(
                f"concurrency={self.concurrency}, attempts={self.attempts} and per_second={self.per_second} cannot be; at "
                "least 1, 1, and a number above 0 are expected."
            )


class Asked:
    """A chat model that is asked, and the journal of its answers.

    Args:
        model: Any chat model of LangChain's.
        name: What requests know it by.
        journal: Where answers are kept; held.
        settings: What is generated.
        asking: How.
    """

    def __init__(
        self, model: BaseChatModel, name: str, journal: Journal, settings: SyntheticSettings, asking: Asking
    ) -> None:
        from langchain_core.rate_limiters import InMemoryRateLimiter

        self.model = model
        self.name = name
        self.journal = journal
        self.settings = settings
        self.asking = asking
        self.made = 0
        self.errors: dict[str, int] = {}
        self._answered_at = 0.0
        self._stopping = False
        self._structured = asking.structured
        self._structured_works = False
        per_second = asking.per_second
        self._limiter = (
            InMemoryRateLimiter(requests_per_second=per_second, check_every_n_seconds=min(0.1, 0.5 / per_second))
            if per_second is not None
            else None
        )

    def identity(self, request: ChatRequest) -> str:
        """What a request is known by in the journal."""
        return request.identity(self.name, self.settings)

    def answer(self, request: ChatRequest) -> Answer | None:
        """The answer to a request, where there is one."""
        identity = self.identity(request)
        return self.journal.answer(identity) if identity in self.journal else None

    async def ask(self, requests: Iterable[ChatRequest], advance: Callable[[int], object] = lambda count: None) -> None:
        """Make the requests that are not answered yet, and keep their answers.

        When this is cancelled, as Ctrl-C does, no request is begun any more, and the answers on their way are waited for,
        since they are paid for; a second Ctrl-C drops them.

        Args:
            requests: The requests.
            advance: Is called with 1 for each that is done.

        Raises:
            ValueError: If the server does not know the model or the key.
            OSError: If the server answers nothing any more, or the disk is full.
        """
        self._stopping = False
        waiting = iter(requests)
        workers = [asyncio.ensure_future(self._work(waiting, advance)) for _ in range(self.asking.concurrency)]
        try:
            await asyncio.wait(workers, return_when=asyncio.FIRST_EXCEPTION)
            self._stopping = True  # where one has failed, the others end with the answer that is on its way
            done, _ = await asyncio.wait(workers)
        except asyncio.CancelledError:
            self._stopping = True
            logger.warning("Stopping. The answers on their way are waited for; Ctrl-C again drops them.")
            await asyncio.wait(workers, timeout=self.asking.timeout)
            raise
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        for worker in done:
            worker.result()

    async def _work(self, requests: Iterator[ChatRequest], advance: Callable[[int], object]) -> None:
        for request in requests:
            identity = self.identity(request)
            if identity not in self.journal:
                answer = await self._answer(request, identity)
                if answer is not None:
                    self._answered_at = time.monotonic()
                    asked = {"group": request.group, "drawn": dict(request.drawn)}
                    self.journal.write(identity, asked, answer)
                    self.made += 1
            advance(1)
            if self._stopping:
                return

    async def _answer(self, request: ChatRequest, identity: str) -> Answer | None:
        """The answer; none if every attempt fails while others are answered, or the server refuses this request alone."""
        began = time.monotonic()
        draws = random.Random(identity)
        attempt = 0
        while True:
            attempt += 1
            if self._limiter is not None:
                await self._limiter.aacquire()
            started = time.monotonic()
            model, structured = self._as_asked(request, identity)
            try:
                answer = await asyncio.wait_for(self._invoke(model, structured, request), self.asking.timeout)
            except Exception as error:  # Each provider's library has errors of its own.
                paid = _paid(error)
                if paid is None:
                    status = _status(error)
                    name = str(status or type(error).__name__)
                    self.errors[name] = self.errors.get(name, 0) + 1
                    if structured and status in NOT_UNDERSTOOD and not self._structured_works:
                        self._structured = False  # asked again in words alone, which costs no attempt
                        attempt -= 1
                        continue
                    if _passing(error) and attempt < self.asking.attempts and not self._stopping:
                        longest = min(LONGEST_WAIT, self.asking.wait * 2 ** (attempt - 1))
                        await asyncio.sleep(_retry_after(error) or longest * draws.uniform(0.5, 1.0))
                        if self._stopping:
                            return None
                        continue
                    others = self._answered_at > began if _passing(error) else self._answered_at > 0
                    if self._stopping or (others and (_passing(error) or status in NOT_UNDERSTOOD)):
                        return None
                    raise self._stopped(error, attempt) from error
                answer = paid
            self._structured_works |= structured
            return replace(answer, attempts=attempt, seconds=round(time.monotonic() - started, 3))

    async def _invoke(self, model: Any, structured: bool, request: ChatRequest) -> Answer:
        found: Any = await model.ainvoke(request.prompt)
        return _read(found["raw"], found["parsed"]) if structured else _read(found, None)

    def _as_asked(self, request: ChatRequest, identity: str) -> tuple[Any, bool]:
        """The model as it is asked: with the request's seed and schema, where it takes them; and whether it has a schema."""
        model: Any = self.model
        if self.asking.seeded and "seed" in type(model).model_fields:
            model = model.model_copy(update={"seed": int(identity[:SEED_DIGITS], 16)})
        if self._structured:
            try:
                return model.with_structured_output(request.schema, include_raw=True), True
            except (NotImplementedError, ValueError):
                self._structured = False
        return model, False

    def _stopped(self, error: Exception, attempt: int) -> Exception:
        said = " ".join(str(error).split())[:300] or type(error).__name__
        kept = f"{len(self.journal):,} answers are kept in {self.journal.file}; the same command goes on from there."
        if _passing(error):
            return OSError(f"{self.name} does not answer, after {attempt} attempts: {said}. {kept}")
        return ValueError(f"{self.name} cannot be asked: {said}. {kept}")


def _read(message: Any, parsed: Any) -> Answer:
    """An answer of LangChain's as it is kept."""
    about: Mapping[str, Any] = message.response_metadata or {}
    usage: Mapping[str, Any] = message.usage_metadata or {}
    tokens = {name: int(usage[f"{name}_tokens"]) for name in ("input", "output") if f"{name}_tokens" in usage}
    refused = bool((message.additional_kwargs or {}).get("refusal"))
    finish = next((str(about[name]) for name in ("finish_reason", "stop_reason", "done_reason") if about.get(name)), "")
    model = next((str(about[name]) for name in ("model_name", "model") if about.get(name)), "")
    text = json.dumps(parsed, ensure_ascii=False) if isinstance(parsed, dict) else str(message.text)
    broken = getattr(message, "invalid_tool_calls", [])
    text = text or (str(broken[0]["args"]) if broken else "")
    return Answer(text, finish, tokens, model, refused=refused)


def _paid(error: Exception) -> Answer | None:
    """The answer that OpenAI's library makes an error of: one that was cut off or filtered."""
    completion: Any = getattr(error, "completion", None)
    if completion is None:
        return None
    choice, usage = completion.choices[0], completion.usage
    tokens = {"input": usage.prompt_tokens, "output": usage.completion_tokens} if usage is not None else {}
    return Answer(choice.message.content or "", str(choice.finish_reason), tokens, str(completion.model))


def _status(error: Exception) -> int | None:
    for one in (error, getattr(error, "response", None)):
        for name in ("status_code", "status", "code"):
            value = getattr(one, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and 100 <= value < 600:
                return value
    return None


def _passing(error: Exception) -> bool:
    status = _status(error)
    if status is not None:
        return status in PASSES
    names = " ".join(one.__name__ for one in type(error).__mro__)
    return isinstance(error, ConnectionError | TimeoutError) or PASSING.search(names) is not None


def _retry_after(error: Exception) -> float:
    """How many seconds a server asks to wait, 0 if it does not say."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or getattr(error, "headers", None) or {}
    try:
        return min(LONGEST_WAIT, max(0.0, float(headers.get("retry-after") or 0)))
    except (TypeError, ValueError):
        return 0.0
