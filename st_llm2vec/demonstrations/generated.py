"""Candidates without an outside model: the decoder itself says sentences in one word."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import torch
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from st_llm2vec.demonstrations.trial import Candidate
from st_llm2vec.host.quiet_loading import without_reports
from st_llm2vec.modules.formatter import UNLIMITED, InstructionFormatter
from st_llm2vec.recipe.config import Demonstration, EncoderConfig, get_recipe

WORD = re.compile(r"[^\W\d_]{3,}(-[^\W\d_]+)?")
NEW_TOKENS = 6
AT_ONCE = 16
LENGTHS = (4, 16)


def generated_candidates(
    decoder: str,
    sentences: Sequence[str],
    count: int,
    recipe: str | EncoderConfig = "prompteol-icl",
    seed: int = 0,
    dtype: torch.dtype | str | None = None,
    device: str | None = None,
    advance: Callable[[int], object] = lambda words: None,
) -> list[Candidate]:
    """Let a decoder find the word for sentences that are drawn from many.

    Its answer to the recipe's template, greedily, up to the closing quotation mark. What is not one whole word, function words
    and words that another sentence has already are left out, and more sentences are drawn.

    Args:
        decoder: A folder or a name on the Hub.
        sentences: Sentences to draw from; those of 4 to 16 words are taken.
        count: How many candidates are wanted.
        recipe: The template that asks for a word; with a demonstration, answers are words more often.
        seed: Of the draw.
        dtype: The weights' type; the stored one if not given.
        device: Where to generate; the CPU if not given.
        advance: Called with the numbers of words as they are found.

    Returns:
        As many candidates as could be found, at most ``count``.

    Raises:
        ValueError: If no sentence is of these lengths, or the decoder cannot be loaded with its output head.
    """
    drawn = [
        text for text in dict.fromkeys(sentences) if LENGTHS[0] <= len(text.split()) <= LENGTHS[1] and '"' not in text
    ]
    if not drawn:
        raise ValueError(f"None of the {len(sentences)} sentences has {LENGTHS[0]} to {LENGTHS[1]} words.")
    random.Random(seed).shuffle(drawn)
    found: dict[str, Candidate] = {}
    for text, word in _answers(decoder, drawn, get_recipe(recipe), dtype, device):
        if word is not None and word not in found:
            found[word] = Candidate((Demonstration(text, word),), "generated")
            advance(1)
        if len(found) == count:
            break
    return list(found.values())


def as_word(answer: str) -> str | None:
    """The word that a decoder answered, with a capital; ``None`` where it is none.

    Args:
        answer: What it wrote behind the opening quotation mark.

    Example:
        >>> as_word('horse riding". Another'), as_word('fun".'), as_word("uninterrup"), as_word('the"')
        (None, 'Fun', None, None)
    """
    word, mark, _ = answer.partition('"')
    word = word.strip().rstrip(".")
    if not mark or not WORD.fullmatch(word) or word.lower() in ENGLISH_STOP_WORDS:
        return None
    return word[0].upper() + word[1:]


@torch.inference_mode()
def _answers(
    decoder: str, texts: Sequence[str], config: EncoderConfig, dtype: Any, device: str | None
) -> Iterator[tuple[str, str | None]]:
    options: dict[str, Any] = {"trust_remote_code": False, "dtype": dtype or "auto", "use_safetensors": True}
    try:
        with without_reports():
            model: Any = AutoModelForCausalLM.from_pretrained(decoder, **options)
            tokenizer = cast("PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(decoder, trust_remote_code=False))
    except (OSError, ValueError) as error:
        raise ValueError(f"{decoder} cannot be loaded with its output head, to generate words: {error}") from error
    model = model.to(device or "cpu").eval()
    tokenizer.padding_side = "left"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    formatter = InstructionFormatter(**config.formatter_config())
    for start in range(0, len(texts), AT_ONCE):
        some = list(texts[start : start + AT_ONCE])
        batch = formatter(some, None, tokenizer, UNLIMITED)
        asked = {name: batch[name].to(model.device) for name in ("input_ids", "attention_mask")}
        ids = model.generate(**asked, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id)
        for text, answer in zip(some, ids[:, asked["input_ids"].shape[1] :], strict=True):
            yield text, as_word(str(tokenizer.decode(answer, skip_special_tokens=True)))
