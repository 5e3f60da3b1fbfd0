"""A decoder in a folder that answers many requests in one pass, each by draws of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LogitsProcessor, LogitsProcessorList, TopPLogitsWarper

from st_llm2vec.encoding.dtype import resolve_dtype
from st_llm2vec.host.quiet_loading import without_reports

Chat = list[dict[str, str]]


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn.

    Args:
        temperature: The temperature; 0 takes the likeliest token.
        top_p: The share of the probability that is sampled from.
        max_tokens: The longest answer.
        seed: The seed.
    """

    temperature: float
    top_p: float
    max_tokens: int
    seed: int


@dataclass(frozen=True)
class Decoded:
    """An answer: its text, how many tokens were read and written, and whether it came to its end."""

    text: str
    read: int
    written: int
    ended: bool


class LocalDecoder:
    """A decoder and its tokenizer.

    Requests that wait at the same time are answered in one pass. What one answers does not depend on the others, but for
    the last digits of floating point.

    Args:
        folder: The folder.
        dtype: Weights' type, ``None`` for the stored one, or ``"auto"`` for the device's own.

    Raises:
        ValueError: If the folder holds no decoder with a tokenizer.
    """

    def __init__(self, folder: str, dtype: str | None) -> None:
        self.folder = folder
        if not (Path(folder) / "config.json").is_file():
            raise ValueError(f"{folder} is no folder of a decoder: it has no config.json.")
        try:
            with without_reports():
                self.tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, padding_side="left")
                loaded: Any = AutoModelForCausalLM.from_pretrained(
                    folder,
                    dtype=resolve_dtype(dtype) or "auto",
                    local_files_only=True,
                    use_safetensors=True,
                    output_loading_info=True,
                )
        except Exception as error:  # Each library raises its own.
            raise ValueError(f"{folder} could not be loaded as a decoder with a tokenizer: {error}") from error
        self.model, report = loaded
        if report["missing_keys"]:
            raise ValueError(f"{folder} is incomplete: it has no weights {sorted(report['missing_keys'])[0]}.")
        self.model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        self._waiting: list[tuple[Chat, Sampling, asyncio.Future[Decoded]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def answer(self, chat: Chat, sampling: Sampling) -> Decoded:
        """Answer a chat, in one pass with those that others wait for.

        Args:
            chat: Its messages, with ``role`` and ``content``.
            sampling: How the answer is drawn.
        """
        found: asyncio.Future[Decoded] = asyncio.get_running_loop().create_future()
        self._waiting.append((chat, sampling, found))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.ensure_future(self._work())
        return await found

    async def _work(self) -> None:
        while self._waiting:
            await asyncio.sleep(0.01)  # those that are asked at once arrive one after the other
            batch, self._waiting = self._waiting, []
            try:
                answers = await asyncio.to_thread(self.answers, [one[0] for one in batch], [one[1] for one in batch])
            except Exception as error:
                for *_, found in batch:
                    if not found.done():
                        found.set_exception(error)
                continue
            for (*_, found), answer in zip(batch, answers, strict=True):
                if not found.done():
                    found.set_result(answer)

    def answers(self, chats: Sequence[Chat], samplings: Sequence[Sampling]) -> list[Decoded]:
        """Answer chats in one pass.

        Raises:
            ValueError: If one leaves no room for an answer.
        """
        inputs = self._encoded(chats).to(self.model.device)
        longest = inputs["input_ids"].shape[1]
        context = getattr(self.model.config.get_text_config(decoder=True), "max_position_embeddings", None)
        most = max(one.max_tokens for one in samplings)
        room = most if context is None else min(most, context - longest)
        if room < 1:
            raise ValueError(f"A prompt has {longest} tokens, and {self.folder} reads {context}. Use another decoder.")
        with torch.inference_mode():
            made = self.model.generate(
                **inputs,
                max_new_tokens=room,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=self.tokenizer.pad_token_id,
                logits_processor=LogitsProcessorList([OwnDraws(samplings)]),
            )
        reads = inputs["attention_mask"].sum(dim=1).tolist()
        return [
            self._decoded(row[longest:].tolist()[: one.max_tokens], read)
            for row, read, one in zip(made, reads, samplings, strict=True)
        ]

    def _decoded(self, tokens: list[int], read: int) -> Decoded:
        ends = self.model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        end = next((at for at, token in enumerate(tokens) if token in ends), None)
        written = tokens if end is None else tokens[: end + 1]
        return Decoded(self.tokenizer.decode(written, skip_special_tokens=True), read, len(written), end is not None)

    def _encoded(self, chats: Sequence[Chat]) -> Any:
        options: dict[str, Any] = {"return_tensors": "pt", "padding": True}
        if self.tokenizer.chat_template is None:
            return self.tokenizer(["\n\n".join(one["content"] for one in chat) for chat in chats], **options)
        return self.tokenizer.apply_chat_template(
            list(chats),
            add_generation_prompt=True,
            return_dict=True,
            tokenizer_kwargs={"padding_side": "left"},
            **options,
        )


class OwnDraws(LogitsProcessor):
    """Makes the likeliest token of each row one that is drawn, from the row's own seed (the Gumbel-max trick).

    Args:
        samplings: How each row is drawn.
    """

    def __init__(self, samplings: Sequence[Sampling]) -> None:
        self.samplings = samplings
        self.draws = [torch.Generator().manual_seed(one.seed) for one in samplings]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores ``(batch, vocabulary)`` with noise."""
        rows = []
        for row, sampling, draws in zip(scores.float(), self.samplings, self.draws, strict=True):
            noise = torch.rand(row.shape, generator=draws).clamp_(min=1e-20).log().neg().log().neg()
            if sampling.temperature > 0:
                row = row / sampling.temperature
                if sampling.top_p < 1:
                    row = TopPLogitsWarper(sampling.top_p)(input_ids, row[None])[0]
                row = row + noise.to(row.device)
            rows.append(row)
        return torch.stack(rows)
