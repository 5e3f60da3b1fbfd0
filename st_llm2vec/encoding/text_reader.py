"""How an encoder reads its inputs, from the call of ``encode`` to the tokens of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from jinja2 import TemplateError
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.util.decorators import deprecated_kwargs
from transformers import PreTrainedTokenizerBase

from st_llm2vec.encoding.inference import infer
from st_llm2vec.encoding.inputs import TOKENIZING, block_features, is_block, read_call, with_one_instruction
from st_llm2vec.encoding.rendering import Rendering
from st_llm2vec.modules.formatter import UNLIMITED, InstructionFormatter
from st_llm2vec.modules.transformer import add_position_ids, longest_input
from st_llm2vec.recipe.manifest import Manifest

KEPT_INSTRUCTIONS = 1024
PROMPT_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}  # the host's, by the task


class TextReader(SentenceTransformer):
    """A ``SentenceTransformer`` that reads one instruction for each text, and refuses what it cannot read.

    Args:
        *args: As for ``SentenceTransformer``.
        **kwargs: As for ``SentenceTransformer``.
    """

    manifest: Manifest | None = None
    base_fingerprint: str | None = None
    trained_head: Path | None = None  # the folder that it was loaded from, if that holds a head that MNTP trained

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fitting_prompts: set[tuple[str | None, int]] = set()
        self._rendering = Rendering()

    @property
    def transformer(self) -> Transformer:
        """The first module: the decoder and its tokenizer."""
        return cast("Transformer", self[0])

    @property
    def layout(self) -> str | None:
        """How the encoder was compiled; kept in the model's configuration, which plain re-saving keeps too."""
        kept = getattr(self.transformer.model.config, "st_llm2vec_layout", None)
        return kept or (self.manifest.layout if self.manifest is not None else None)

    @deprecated_kwargs(sentences="inputs")
    def encode(self, inputs: Any, prompt_name: str | None = None, prompt: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Encode texts, as ``SentenceTransformer.encode`` does, and read an instruction for each of them.

        Args:
            inputs: A text; texts, in a list or from a generator; or texts with an instruction each,
                ``[[instruction, text], ...]`` or ``[{"text": str, "instruction": str | None}, ...]``, which then takes the
                place of any saved one.
            prompt_name: Name of a saved instruction.
            prompt: A bare instruction; or one for each text, where ``None`` is the saved one and ``""`` none.
            *args: As for ``SentenceTransformer.encode``.
            **kwargs: As for ``SentenceTransformer.encode``.

        Returns:
            The vectors, in the order of the texts. A text's vector is that of a call of its own.

        Raises:
            ValueError: If an input or an instruction cannot be read; the message names its row.

        Example:
            >>> from st_llm2vec import convert, decoder_path
            >>> encoder = convert(decoder_path(), "e5-mistral")
            >>> encoder.encode(["a cat", "the sea"], prompt=["Name the animal.", None]).shape
            (2, 192)
            >>> encoder.encode([["Name the animal.", "a cat"], ["", "the sea"]]).shape
            (2, 192)
        """
        if "instruction" in kwargs:
            raise ValueError("encode has no argument 'instruction': give it as prompt=, or [[instruction, text], ...].")
        if isinstance(inputs, Iterator):
            inputs = list(inputs)
        single = self.is_singular_input(inputs)
        saved = partial(self.saved_instruction, prompt_name, kwargs.get("task"))
        rows, instruction = read_call([inputs] if single else inputs, prompt, saved)
        if instruction is not None:
            prompt_name = None
        return super().encode(rows[0] if single else rows, prompt_name, instruction, *args, **kwargs)

    def saved_instruction(self, prompt_name: str | None = None, task: str | None = None) -> str | None:
        """The instruction of a call without any.

        Args:
            prompt_name: Its name, if the call has one.
            task: ``"query"`` in ``encode_query``, and ``"document"`` in ``encode_document``.

        Returns:
            The instruction, or ``None``.

        Raises:
            ValueError: If there is none of this name.
        """
        if prompt_name is None:
            prompt_name = next((name for name in PROMPT_NAMES.get(task or "", ()) if name in self.prompts), None)
        return self._resolve_prompt(None, prompt_name)

    def preprocess(self, inputs: Sequence[Any], prompt: Any = None, **kwargs: Any) -> dict[str, Any]:
        """Tokenise a batch.

        Args:
            inputs: The texts; or blocks of token ids, possibly of different lengths, for training on packed texts; or
                texts with an instruction each, ``[instruction, text]`` or ``{"text": str, "instruction": str | None}``.
                Encoders of stock modules take one instruction for a batch, those with an ``InstructionFormatter`` any.
            prompt: The bare instruction, or one for each text; the blank between it and the text is added here where
                one is needed.
            **kwargs: As for ``SentenceTransformer.preprocess``.

        Returns:
            ``input_ids`` and ``attention_mask`` of shape ``(batch, tokens)``, and what the modules need beside them.

        Raises:
            ValueError: If template and instruction leave no room for a text, a block is too long, the instructions
                of a batch differ where they cannot, or the recipe takes none.
        """
        if inputs and is_block(inputs[0]):
            return self._block_features(inputs, prompt, kwargs.get("max_length"))
        with TOKENIZING:
            return self._text_features(inputs, prompt, kwargs)

    def _text_features(self, inputs: Sequence[Any], prompt: Any, kwargs: dict[str, Any]) -> dict[str, Any]:
        layout = self.layout
        inputs, prompt = with_one_instruction(inputs, prompt, one_only=layout != "custom")
        self._require_no_instruction(prompt)
        self.check_room(prompt, longest_input(self.transformer, **_limits(kwargs)))
        if layout == "text":
            prompt = (prompt.strip() or None) if isinstance(prompt, str) else prompt
            inputs = inputs if prompt is None else [behind_a_blank(text) for text in inputs]
        elif layout == "prefix":
            prompt = as_prefix(prompt)
        try:
            features: dict[str, Any] | None = self._rendering(self.transformer, inputs, prompt, kwargs)
            if features is None:
                features = super().preprocess(inputs, prompt=prompt, **kwargs)
        except TemplateError as error:  # what the chat template refuses
            raise ValueError(str(error)) from error
        if features and layout in ("prefix", "text"):
            features = with_something_to_read(features, self.tokenizer)
        return add_position_ids(features, self.transformer.model) if features else features

    def _block_features(self, blocks: Sequence[Any], prompt: Any, max_length: int | None) -> dict[str, Any]:
        features = block_features(blocks, prompt, self.tokenizer, max_length or self.max_seq_length)
        if self.layout != "custom":
            del features["pooling_mask"]
        return add_position_ids({**features, "modality": "text"}, self.transformer.model)

    @torch.inference_mode()
    def _inference(self, inputs: list[Any], **options: Any) -> Any:
        """Encode texts in batches of tokens, and anything else as the host does."""
        return infer(self, inputs, super()._inference, **options)

    def _require_no_instruction(self, prompt: str | None) -> None:
        if not prompt or not prompt.strip() or self.manifest is None:
            return
        config = self.manifest.config
        if config.instruction_template is None:
            raise ValueError(
                f"The recipe {config.name!r} takes no instruction, and {prompt[:60]!r} was given. Encode without a "
                "prompt, or convert the decoder with a recipe that has an instruction_template."
            )

    def check_room(self, prompt: Any = None, max_length: int | None = None) -> None:
        """Raise unless template and instruction leave room for a text.

        Stock preprocessing would cut the text away without a word, and all texts would share one vector.

        Args:
            prompt: The instruction.
            max_length: Longest input of this call, in tokens; the encoder's own if not given.

        Raises:
            ValueError: If they are as long as the longest input.
        """
        limit = max_length or self.max_seq_length or UNLIMITED
        known = (prompt, limit)
        if (
            self.manifest is None
            or self.layout == "custom"
            or not isinstance(prompt, str | None)
            or known in self._fitting_prompts
        ):
            return
        written = {
            **self.manifest.config.formatter_config(),
            "split_special_tokens": self.tokenizer.split_special_tokens,
        }
        formatter = InstructionFormatter(**written)  # another way of reading would switch the tokenizer for all threads
        if prompt and formatter.instruction_template is None:
            return
        needed = formatter([""], prompt, self.tokenizer, UNLIMITED)["input_ids"].shape[1]
        if needed >= limit:
            raise ValueError(
                f"The template and the instruction take {needed} tokens and leave no room for the text within "
                f"max_seq_length={limit}. Shorten the instruction or the demonstrations, or raise the limit."
            )
        if len(self._fitting_prompts) >= KEPT_INSTRUCTIONS:
            self._fitting_prompts.clear()
        self._fitting_prompts.add(known)


def with_something_to_read(features: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Read an empty text as one padding token where the tokenizer adds no BOS and leaves nothing to read.

    Args:
        features: ``input_ids`` and ``attention_mask`` of shape ``(batch, tokens)``.
        tokenizer: Its padding token is used.
    """
    mask = features["attention_mask"]
    if not mask.numel():
        ids = torch.full((len(mask), 1), cast("int", tokenizer.pad_token_id))
        return {**features, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    empty = mask.sum(dim=1) == 0
    if empty.any():
        mask[empty, -1 if tokenizer.padding_side == "left" else 0] = 1
    return features


def as_prefix(instruction: str | None) -> str | None:
    """An instruction as it stands before a text: with one blank at its end; ``None`` where there is none.

    Args:
        instruction: The instruction.
    """
    bare = (instruction or "").strip()
    return f"{bare} " if bare else None


def behind_a_blank(text: Any) -> Any:
    """A text as it follows a bare instruction: behind one blank, which is all that there is of an empty text.

    Args:
        text: The text; what is none is left as it is.
    """
    return f" {text.lstrip(' ')}" if isinstance(text, str) else text


def _limits(options: dict[str, Any]) -> dict[str, Any]:
    return {"max_length": options.get("max_length"), "processing_kwargs": options.get("processing_kwargs")}
