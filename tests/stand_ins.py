"""Small stand-ins for real decoders: random weights, but the tokenizer classes, types and templates of real ones.

Transformers' own tokenizer classes rebuild parts of their backend when they are loaded, and most published weights are
stored in bfloat16. What is proven on generic tokenizers and float32 weights alone does not hold for real models.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    CohereTokenizer,
    GemmaTokenizer,
    GPT2Tokenizer,
    GPTNeoXTokenizer,
    LlamaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
)

from tests.tiny_decoders import tiny_decoder
from tests.tiny_tokenizers import TRAINING_TEXT, tiny_tokenizer

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@dataclass(frozen=True)
class StandIn:
    """A family of decoders, small.

    Args:
        tokenizer: The tokenizer's class.
        model_type: The decoder's family.
        special: The special tokens, by the constructor's names.
        byte_level: Whether the vocabulary is byte-level BPE; otherwise SentencePiece's, with ``▁`` for a blank.
        options: Other arguments of the tokenizer.
        chat_template: The tokenizer's chat template.
        model: Fields of the decoder's configuration that are not the tiny ones.
    """

    tokenizer: type[Any]
    model_type: str
    special: dict[str, str]
    byte_level: bool
    options: dict[str, Any] = field(default_factory=dict)
    chat_template: str | None = None
    model: dict[str, Any] = field(default_factory=dict)


STAND_INS = {
    "gemma": StandIn(
        GemmaTokenizer,
        "gemma3_text",
        {
            "pad_token": "<pad>",
            "eos_token": "<eos>",
            "bos_token": "<bos>",
            "unk_token": "<unk>",
            "mask_token": "<mask>",
        },
        byte_level=False,
        options={"add_bos_token": True},
        model={"hidden_size": 96},  # its root, the scale of the embeddings, is rounded in bfloat16, as Gemma's own
    ),
    "llama": StandIn(
        LlamaTokenizer,
        "llama",
        {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
        byte_level=False,
        options={"add_bos_token": True},
        model={"tie_word_embeddings": False},
    ),
    "smollm2": StandIn(
        GPT2Tokenizer,
        "llama",
        {
            "unk_token": "<|endoftext|>",
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "pad_token": "<|im_end|>",
        },
        byte_level=True,
        chat_template=CHATML,
        model={"tie_word_embeddings": True},
    ),
    "qwen2": StandIn(
        Qwen2Tokenizer,
        "qwen2",
        {"unk_token": "<|endoftext|>", "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
        byte_level=True,
        chat_template=CHATML,
    ),
    "gpt2": StandIn(
        GPT2Tokenizer,
        "gpt2",
        {"unk_token": "<|endoftext|>", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
        byte_level=True,
    ),
    "gpt_neox": StandIn(
        GPTNeoXTokenizer,
        "gpt_neox",
        {
            "unk_token": "<|endoftext|>",
            "bos_token": "<|endoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|padding|>",
        },
        byte_level=True,
        model={"tie_word_embeddings": False},
    ),
    "cohere": StandIn(
        CohereTokenizer,
        "cohere",
        {
            "pad_token": "<PAD>",
            "unk_token": "<UNK>",
            "cls_token": "<CLS>",
            "sep_token": "<SEP>",
            "mask_token": "<MASK_TOKEN>",
            "bos_token": "<BOS_TOKEN>",
            "eos_token": "<|END_OF_TURN_TOKEN|>",
        },
        byte_level=True,
        options={"add_bos_token": True},
    ),
    "generic": StandIn(
        PreTrainedTokenizerFast,
        "mistral",
        {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        byte_level=True,
    ),
}


def stand_in(kind: str, folder: str | Path, dtype: torch.dtype = torch.bfloat16, **config: Any) -> str:
    """Write a stand-in's folder, as its authors would publish it.

    Args:
        kind: A key of ``STAND_INS``.
        folder: Where to.
        dtype: The type that the weights are stored in.
        **config: Fields of the decoder's configuration that are not the stand-in's.

    Returns:
        The folder.
    """
    made = STAND_INS[kind]
    tokenizer = stand_in_tokenizer(kind)
    tokenizer.save_pretrained(folder)
    model = tiny_decoder(made.model_type, vocab_size=512, **{**made.model, **config})
    model.to(dtype).save_pretrained(folder)
    return str(folder)


def stand_in_tokenizer(kind: str) -> Any:
    """A tokenizer of the stand-in's class over a vocabulary of about 480 tokens."""
    made = STAND_INS[kind]
    if made.tokenizer is PreTrainedTokenizerFast:
        return tiny_tokenizer("byte-level+bos")
    specials = tuple(dict.fromkeys([*made.special.values(), *(("<|im_start|>",) if made.chat_template else ())]))
    vocabulary, merges = _vocabulary(specials, made.byte_level)
    tokenizer = made.tokenizer(vocab=dict(vocabulary), merges=list(merges), **made.special, **made.options)
    tokenizer.model_max_length = 512
    if made.chat_template:
        tokenizer.chat_template = made.chat_template
    return tokenizer


@functools.cache
def _vocabulary(specials: tuple[str, ...], byte_level: bool) -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """Train a small BPE vocabulary: its tokens and merges."""
    trained = Tokenizer(models.BPE())
    if byte_level:
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet, first = pre_tokenizers.ByteLevel.alphabet(), list(specials)
    else:
        trained.pre_tokenizer = pre_tokenizers.Metaspace()
        alphabet, first = [*map(chr, range(33, 127)), "▁"], [*specials, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=480, special_tokens=first, initial_alphabet=alphabet, show_progress=False)
    trained.train_from_iterator(TRAINING_TEXT, trainer=trainer)
    model = json.loads(trained.to_str())["model"]
    return model["vocab"], tuple((one[0], one[1]) for one in model["merges"])
