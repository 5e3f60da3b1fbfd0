"""A decoder in a folder as a chat model of LangChain's, in this process and without network."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import torch
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr
from transformers import AutoModelForCausalLM, AutoTokenizer

from st_llm2vec.encoding.dtype import resolve_dtype
from st_llm2vec.host.quiet_loading import without_reports

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
        seed: The seed of an answer, which ``invoke(..., seed=...)`` gives anew.

    Raises:
        ValueError: If the folder holds no decoder with a tokenizer.
    """

    folder: str
    dtype: str | None = "auto"
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = MAX_TOKENS
    seed: int = 42

    _model: Any = PrivateAttr()
    _tokenizer: Any = PrivateAttr()
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    def model_post_init(self, context: Any, /) -> None:
        """Load the decoder."""
        super().model_post_init(context)
        if not (Path(self.folder) / "config.json").is_file():
            raise ValueError(f"{self.folder} is no folder of a decoder: it has no config.json.")
        dtype = resolve_dtype(self.dtype, None)
        try:
            with without_reports():
                self._tokenizer = AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
                model, report = AutoModelForCausalLM.from_pretrained(
                    self.folder,
                    dtype=dtype or "auto",
                    local_files_only=True,
                    use_safetensors=True,
                    output_loading_info=True,
                )
        except Exception as error:  # Each library raises its own.
            raise ValueError(f"{self.folder} could not be loaded as a decoder with a tokenizer: {error}") from error
        if report["missing_keys"]:
            raise ValueError(f"{self.folder} is incomplete: it has no weights {sorted(report['missing_keys'])[0]}.")
        self._model = model.eval()
        if torch.cuda.is_available():
            self._model.to("cuda")

    @property
    def _llm_type(self) -> str:
        return "st-llm2vec-local"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        *,
        seed: int | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        inputs = self._encoded(messages).to(self._model.device)
        read = inputs["input_ids"].shape[1]
        context = getattr(self._model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        room = self.max_tokens if context is None else min(self.max_tokens, context - read)
        if room < 1:
            raise ValueError(f"The prompt has {read} tokens, and {self.folder} reads {context}. Use another decoder.")
        sampling: dict[str, Any] = {"do_sample": False}
        if self.temperature > 0:
            sampling = {"do_sample": True, "temperature": self.temperature, "top_p": self.top_p, "top_k": 0}
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with self._lock, torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(self.seed if seed is None else seed)
            padding = self._tokenizer.pad_token_id
            padding = self._tokenizer.eos_token_id if padding is None else padding
            made = self._model.generate(**inputs, max_new_tokens=room, pad_token_id=padding, **sampling)[0, read:]
        usage = UsageMetadata(input_tokens=read, output_tokens=len(made), total_tokens=read + len(made))
        ends = self._model.generation_config.eos_token_id
        ended = len(made) > 0 and made[-1].item() in (ends if isinstance(ends, list) else [ends])
        message = AIMessage(
            self._tokenizer.decode(made, skip_special_tokens=True),
            usage_metadata=usage,
            response_metadata={"finish_reason": "stop" if ended else "length", "model_name": Path(self.folder).name},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _encoded(self, messages: list[BaseMessage]) -> Any:
        if self._tokenizer.chat_template is None:
            text = "\n\n".join(str(message.text) for message in messages)
            return self._tokenizer(text, return_tensors="pt")
        chat = [{"role": ROLES[message.type], "content": str(message.text)} for message in messages]
        return self._tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
