"""A decoder in a folder as a chat model of LangChain's, in this process and without network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

from st_llm2vec.synthetic.local_decoder import Chat, Decoded, LocalDecoder, Sampling

ROLES = {"human": "user", "ai": "assistant", "system": "system"}
MAX_TOKENS = 1024


class LocalChat(BaseChatModel):
    """A decoder that answers by its tokenizer's chat template; without one it goes on where the prompt ends.

    Args:
        folder: The decoder's folder.
        dtype: Weights' type, ``None`` for the stored one, or ``"auto"`` for the device's own.
        temperature: The temperature of sampling; 0 takes the likeliest token.
        top_p: The share of the probability that is sampled from.
        max_tokens: The longest answer.
        seed: The seed of an answer.

    Raises:
        ValueError: If the folder holds no decoder with a tokenizer.
    """

    folder: str
    dtype: str | None = "auto"
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = MAX_TOKENS
    seed: int = 42

    _decoder: LocalDecoder = PrivateAttr()

    def model_post_init(self, context: Any, /) -> None:
        """Load the decoder."""
        super().model_post_init(context)
        self._decoder = LocalDecoder(self.folder, self.dtype)

    @property
    def _llm_type(self) -> str:
        return "st-llm2vec-local"

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return self._result(self._decoder.answers([_chat(messages)], [self._sampling()])[0])

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        return self._result(await self._decoder.answer(_chat(messages), self._sampling()))

    def _sampling(self) -> Sampling:
        return Sampling(self.temperature, self.top_p, self.max_tokens, self.seed)

    def _result(self, found: Decoded) -> ChatResult:
        usage = UsageMetadata(
            input_tokens=found.read, output_tokens=found.written, total_tokens=found.read + found.written
        )
        about = {"finish_reason": "stop" if found.ended else "length", "model_name": Path(self.folder).name}
        message = AIMessage(found.text, usage_metadata=usage, response_metadata=about)
        return ChatResult(generations=[ChatGeneration(message=message)])


def _chat(messages: list[BaseMessage]) -> Chat:
    return [{"role": ROLES[message.type], "content": str(message.text)} for message in messages]
