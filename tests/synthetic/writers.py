"""What stands in for a chat model's wit: answers to the package's prompts, sentences drawn from lists of words."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

NOUNS = (
    "miller baker river garden engine letter window doctor teacher market ship bridge harvest winter storm book".split()
)
VERBS = "found painted carried repaired remembered sold described measured opened followed painted counted".split()
ADJECTIVES = "old quiet broken heavy yellow distant careful narrow early friendly wooden silver".split()
PLACES = (
    "by the station,before the war,in the northern hills,after the long rain,with both hands,near the harbour".split(
        ","
    )
)
KEYS = re.compile(
    r'"(user_query|positive_document|hard_negative_document|input_text|label|misleading_label|input|S[123])"'
)
TASKS = re.compile(r"Write (\d+) such tasks")


def sentence(draws: random.Random) -> str:
    first, second = (f"{draws.choice(ADJECTIVES)} {draws.choice(NOUNS)}" for _ in range(2))
    return f"the {first} {draws.choice(VERBS)} the {second} {draws.choice(PLACES)} on day {draws.randrange(10**6)}"


def write(prompt: str, draws: random.Random) -> str:
    """A good answer to a prompt."""
    wanted = TASKS.search(prompt)
    if wanted:
        return json.dumps({"tasks": [f"Given how {sentence(draws)}, find who saw it." for _ in range(int(wanted[1]))]})
    texts: dict[str, str] = {}
    for key in dict.fromkeys(KEYS.findall(prompt)):
        label = key in ("label", "misleading_label")
        texts[key] = f"class {draws.randrange(10**6)}" if label else ". ".join(sentence(draws) for _ in range(2))
    return json.dumps(texts)


def drawn_from(prompt: str, *more: object) -> random.Random:
    return random.Random(hashlib.sha256(f"{prompt} {more}".encode()).hexdigest())


class ScriptedChat(BaseChatModel):
    """A chat model that answers as a function of the prompt says, or raises what it returns; it counts its prompts."""

    script: Callable[[str], Any] = lambda prompt: write(prompt, drawn_from(prompt))
    finish: str = "stop"
    _prompts: list[str] = PrivateAttr(default_factory=list)

    @property
    def prompts(self) -> list[str]:
        return self._prompts

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        raise AssertionError("it is asked asynchronously")

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        prompt = str(messages[-1].text)
        self._prompts.append(prompt)
        answer = self.script(prompt)
        if hasattr(answer, "__await__"):
            answer = await answer
        if isinstance(answer, BaseException):
            raise answer
        usage = UsageMetadata(input_tokens=100, output_tokens=50, total_tokens=150)
        about = {"finish_reason": self.finish, "model_name": "scripted-1"}
        message = AIMessage(answer, usage_metadata=usage, response_metadata=about)
        return ChatResult(generations=[ChatGeneration(message=message)])


def chat_model(temperature: float, top_p: float, max_tokens: int | None) -> ScriptedChat:
    """What `package.module:object` names."""
    assert (temperature, top_p, max_tokens) == (1.0, 1.0, None)
    return ScriptedChat()
