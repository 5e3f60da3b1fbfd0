"""Special tokens in a text are text: ``</s>`` in a text is four characters, and ends nothing.

What was found by trying it on Llama's, Gemma's, GPT-2's, GPT-NeoX's, Qwen2's, Cohere's and generic tokenizers:

- ``split_special_tokens`` of a fast tokenizer reads special tokens as text. It is saved in ``tokenizer_config.json`` and
  comes back with each of these classes only if it is set both as an attribute and among the ``init_kwargs``. What the
  tokenizer itself adds, BOS, stays a token. That serves the layouts ``text`` and ``custom``, where nothing but BOS and EOS,
  which are put there by their ids, is to be a control token.
- A chat template writes BOS and EOS as strings among the others, so that the layout ``message`` cannot split. Its template
  breaks special tokens in the text with a mark, a noncharacter that the tokenizer's normalizer takes out again: added
  tokens are looked for before the normalizer, and what is left is read as text, with the very tokens that splitting gives.
- Setting it in a call switches a tokenizer for all threads, so that it is set once.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass

import torch
from sentence_transformers.base.modules import Transformer
from tokenizers import normalizers
from transformers import PreTrainedTokenizerBase, TokenizersBackend

from st_llm2vec.modules.formatter import UNLIMITED, InstructionFormatter
from st_llm2vec.proof.same_tokens import CannotSay, tokenizer_of
from st_llm2vec.proof.texts import INSTRUCTIONS, TEXTS
from st_llm2vec.recipe.config import EncoderConfig

logger = logging.getLogger(__name__)

MARK = "\ufdd2"  # a noncharacter, which no text should hold
TRIED = 50
TURN = ("text", "instruction")
BREAKS = (
    "{{%- for start in {starts} -%}}"
    + "".join(f"{{{{%- set turn.{part} = turn.{part} | replace(start, start ~ '{MARK}') -%}}}}" for part in TURN)
    + "{{%- endfor -%}}"
)
BREAKS_AGAIN = re.compile(re.escape(BREAKS.format(starts="STARTS")).replace("STARTS", r"(\[.*?\])"), re.DOTALL)


def read_as_text(transformer: Transformer, config: EncoderConfig) -> EncoderConfig:
    """Let a decoder's tokenizer read special tokens in texts as the encoder is to.

    Args:
        transformer: The decoder; its tokenizer is set.
        config: The encoder.

    Returns:
        The encoder, which honours them after all where its tokenizer cannot do otherwise; then a warning says why.
    """
    tokenizer = tokenizer_of(transformer)
    reason = _why_not(tokenizer, config) if config.split_special_tokens else None
    if reason is not None:
        logger.warning(
            "Special tokens in a text, such as %r, are control tokens for this encoder: %s. Take them out of texts of others.",
            tokenizer.eos_token,
            reason,
        )
        config = config.replace(split_special_tokens=False)
    set_split(tokenizer, config.split_special_tokens)
    return config


def set_split(tokenizer: PreTrainedTokenizerBase, split: bool) -> None:
    """Have special tokens read as text, by this tokenizer and by what is loaded from where it is saved.

    Args:
        tokenizer: The tokenizer.
        split: Whether they are text.
    """
    tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = split


def special_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """The special tokens of a tokenizer, and their ids."""
    return {token.content: index for index, token in tokenizer.added_tokens_decoder.items() if token.special}


def _why_not(tokenizer: PreTrainedTokenizerBase, config: EncoderConfig) -> str | None:
    """Why a tokenizer cannot read special tokens as text; ``None`` if it can."""
    for token, index in list(special_tokens(tokenizer).items())[:TRIED]:
        ids = tokenizer(f"a{token}a", add_special_tokens=False, split_special_tokens=True)["input_ids"]
        if index in ids and token != tokenizer.unk_token:
            return f"its tokenizer's own vocabulary holds {token!r}"
    split, honoured = (
        InstructionFormatter(**{**config.formatter_config(), "split_special_tokens": one}) for one in (True, False)
    )
    for instruction in ("", INSTRUCTIONS[0]) if split.instruction_template else ("",):
        with torch.device("cpu"):  # modules may be made without weights, on "meta"
            first, second = (one(TEXTS, instruction, tokenizer, UNLIMITED) for one in (split, honoured))
        if any(first[name].tolist() != second[name].tolist() for name in ("input_ids", "pooling_mask")):
            return "its template has some too, and the tokenizer reads the words between them otherwise"
    return None


@dataclass(frozen=True)
class Breaks:
    """Where a mark breaks special tokens in a text.

    Args:
        starts: Beginnings of special tokens; the mark goes behind each.
    """

    starts: tuple[str, ...]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Breaks:
        """The shortest beginnings that all special tokens have, and no other added token holds.

        Raises:
            CannotSay: If a special token has none.
        """
        special = special_tokens(tokenizer)
        ordinary = [token for token in tokenizer.get_added_vocab() if token not in special]
        starts: list[str] = []
        for token in sorted(special, key=lambda one: (len(one), one)):
            if not token.startswith(tuple(starts)):
                proper = (token[:end] for end in range(1, len(token)))
                start = next((one for one in proper if not any(one in other for other in ordinary)), None)
                if start is None:
                    raise CannotSay(f"nothing tells the special token {token!r} from the text")
                starts.append(start)
        return cls(tuple(starts))

    @classmethod
    def in_template(cls, chat_template: str) -> Breaks:
        """Those that a chat template makes."""
        found = BREAKS_AGAIN.search(chat_template)
        return cls(tuple(json.loads(found[1])) if found else ())

    @staticmethod
    def left_out(chat_template: str) -> str:
        """A chat template without the part that makes them."""
        return BREAKS_AGAIN.sub("", chat_template, count=1)

    def as_template(self) -> str:
        """The part of a chat template that makes them."""
        return BREAKS.format(starts=json.dumps(self.starts, ensure_ascii=False)) if self.starts else ""

    def __call__(self, text: str) -> str:
        """A text as the chat template writes it."""
        for start in self.starts:
            text = text.replace(start, start + MARK)
        return text


UNBROKEN = Breaks(())


def without_marks(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy of a tokenizer that honours special tokens, and takes marks out of a text before it reads it.

    Args:
        tokenizer: The tokenizer.
    """
    made = keeping_its_backend(tokenizer)
    backend = made.backend_tokenizer
    own = [backend.normalizer] if backend.normalizer else []
    backend.normalizer = normalizers.Sequence([normalizers.Replace(MARK, ""), *own])
    set_split(made, False)
    return made


def keeping_its_backend(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy of a tokenizer, of the one class that loads its backend as it was saved.

    Transformers' classes for families of models (Gemma, Qwen2, GPT-2, Llama and others) make normalizer and
    pre-tokenizer anew at loading, from what they know of the family.
    """
    return TokenizersBackend(
        tokenizer_object=tokenizer.backend_tokenizer,
        **tokenizer.special_tokens_map,
        chat_template=tokenizer.chat_template,
        model_input_names=tokenizer.model_input_names,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        clean_up_tokenization_spaces=tokenizer.clean_up_tokenization_spaces,
        split_special_tokens=tokenizer.split_special_tokens,
    )
