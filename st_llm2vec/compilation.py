"""Compile an encoder's config to Sentence Transformers modules: stock ones where they provably say the same.

``InstructionFormatter`` is the specification: which tokens a text becomes and which of them are pooled. Two
arrangements of stock modules are tried against it on a battery of instructions and texts, and the first that
gives the very same tokens is taken:

``text``
    The instruction is a Sentence Transformers prompt. To leave it and BOS out of the mean:
    ``Transformer -> MultiVectorMask -> WordWeights -> Pooling(include_prompt=False)``.
``message``
    The template is a chat template in the tokenizer; the instruction arrives as the system message.

Where neither does, the encoder is made of this package's own modules (``custom``).
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Pooling, WordWeights
from tokenizers import Regex, normalizers
from torch import nn
from transformers import PreTrainedTokenizerBase

from st_llm2vec.modules.instruction import InstructionFormatter, leading_special_ids
from st_llm2vec.modules.latent_attention import LatentAttentionPooling
from st_llm2vec.modules.pooling import SpanPooling
from st_llm2vec.modules.transformer import BidirectionalTransformer
from st_llm2vec.recipes import EncoderConfig

logger = logging.getLogger(__name__)

Layout = Literal["text", "message", "custom"]
STOCK_POOLING = {"mean": "mean", "weighted_mean": "weightedmean", "last_token": "lasttoken"}
UNLIMITED = 1_000_000
PROOF_INSTRUCTIONS = (
    "Retrieve stories that match the query:",
    "Given a question, retrieve passages that answer it",
    "Find the capital.",
    "Represent this (short) text",
    "Which of these 3",
    "the cat sat on a",
    "Étant donné une question :",
)
PROOF_TEXTS = (
    "Once upon a time there was a little girl.",
    "a",
    "I",
    "the man was in the house",
    "12 drummers, 3.5 kg",
    "(brackets) first",
    '"Quoted," she said: "yes."',
    "'s apostrophe",
    "...and dots",
    "- a dash",
    "#hashtag @name",
    "http://example.org/a?b=c",
    "élan vital",
    "北京是中国的首都",
    "اللغة العربية",
    "🙂 an emoji",
    "_ underscore",
    "two\nlines",
    "\ttab first",
    " leading blank",
    "UPPER CASE",
    "camelCaseWord",
    "x" * 70,
    "word " * 30 + "end",
)


@dataclass(frozen=True)
class Compilation:
    """What a config was compiled to.

    Args:
        modules: The modules, in order.
        layout: Which arrangement was taken.
        prompts: The prompts as the modules expect them.
        reason: Why it was taken, in a sentence.
    """

    modules: list[nn.Module]
    layout: Layout
    prompts: dict[str, str]
    reason: str


def compile_encoder(transformer: Transformer, config: EncoderConfig, repaired: bool = False) -> Compilation:
    """Choose and build the modules of an encoder.

    Args:
        transformer: A stock ``Transformer`` over the decoder, its attention already set and proven.
        config: The encoder.
        repaired: Whether the attention needed a repair that a stock reload would not repeat.

    Returns:
        The modules and how they were chosen.
    """
    set_output_layer(transformer, config.layer)
    if repaired:
        return _custom(transformer, config, "the attention of this architecture needs a repair at every load")
    if config.pooling == "latent_attention":
        return _custom(transformer, config, "latent attention is not a stock module")
    formatter = InstructionFormatter(**config.formatter_config())
    refusals = []
    for name, attempt in (("a prompt", _text_layout), ("a chat template", _message_layout)):
        compilation = attempt(transformer, config, formatter)
        if isinstance(compilation, Compilation):
            return compilation
        refusals.append(f"{name} cannot say it: {compilation}")
    return _custom(transformer, config, "; ".join(refusals))


def set_output_layer(transformer: Transformer, layer: int) -> None:
    """Make the module return the hidden states of ``layer`` (``-1``: the model's output)."""
    output: Any = "last_hidden_state" if layer == -1 else ["hidden_states", layer]
    transformer.modality_config = {"text": {"method": "forward", "method_output_name": output}}
    transformer.module_output_name = "token_embeddings"


# The arrangement "text" -----------------------------------------------------------------------------


def _text_layout(transformer: Transformer, config: EncoderConfig, formatter: InstructionFormatter) -> Compilation | str:
    plain, instructed = formatter.template, formatter.instruction_template
    tokenizer = transformer.tokenizer
    bos = leading_special_ids(tokenizer)
    if [piece for piece in plain.pieces if piece not in ("{pool}", "{/pool}")] != ["{text}"] or plain.eos:
        return "the template has words of its own"
    if instructed is not None and (
        [piece for piece in instructed.pieces if piece not in ("{pool}", "{/pool}")]
        not in (["{instruction}", " ", "{text}"], ["{instruction}", " {text}"])
    ):
        return "the instruction is wrapped in words"
    if not plain.bos and bos:
        return "the tokenizer adds a BOS that the template does not have"
    if len(bos) > 1:
        return "the tokenizer puts several tokens before a text"
    span = not plain.pools_everything
    if instructed is not None and instructed.pools_everything == span:
        return "instructed and bare texts differ in what is pooled"
    if span and config.pooling == "weighted_mean":
        return "the weights must count from the first pooled token"
    drop_bos = span and bool(bos) and config.pooling == "mean"
    if drop_bos and not config.normalize:
        return "without BOS in the mean, stock modules get the direction right but not the length"
    normalizer = tokenizer.backend_tokenizer.normalizer
    if instructed is not None:
        instructions = [formatter.bare_instruction(prompt) for prompt in config.prompts.values()]
        _prepare_normalizer(tokenizer, instructions, strip=span)
    failure = _differs(transformer, config, formatter, include_prompt=not span, dropped=bos if drop_bos else [])
    if failure:
        tokenizer.backend_tokenizer.normalizer = normalizer
        return failure
    modules: list[nn.Module] = [transformer]
    if drop_bos or config.attention == "bidirectional":
        modules.append(MultiVectorMask([]))
    if drop_bos:
        modules.append(_word_weights(tokenizer, tokenizer.convert_ids_to_tokens(bos[0])))
    modules.append(
        Pooling(transformer.get_embedding_dimension(), STOCK_POOLING[config.pooling], include_prompt=not span)
    )
    prompts = {name: f"{formatter.bare_instruction(text)} " if text else "" for name, text in config.prompts.items()}
    return Compilation(_normalized(modules, config), "text", prompts, "stock modules with prompts give the same tokens")


def _prepare_normalizer(tokenizer: PreTrainedTokenizerBase, instructions: list[str], strip: bool) -> None:
    """Teach the tokenizer the border between instruction and text.

    With ``strip``, trailing blanks go, so that a prompt that ends in a blank counts as many tokens alone as it
    has inside the whole string. And where a saved instruction is passed bare, so that plain Sentence
    Transformers glues it to the text, the blank between them is put back; instructions of one or two words are
    left alone, since a text might well begin with them.
    """
    backend = tokenizer.backend_tokenizer
    steps = [normalizers.Strip(left=False, right=True)] if strip else []
    for instruction in instructions:
        if len(instruction.split()) >= 3:
            border = Regex(rf"(?<=\A{re.escape(instruction)})(?=\S)")
            steps.append(normalizers.Replace(border, " "))
    if backend.normalizer is not None:
        steps.append(backend.normalizer)
    if steps:
        backend.normalizer = normalizers.Sequence(steps)


def _word_weights(tokenizer: PreTrainedTokenizerBase, bos: str) -> WordWeights:
    """Weight zero for BOS and one for every other token of the vocabulary."""
    vocabulary = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    vocabulary = [f"<unused {index}>" if token is None else token for index, token in enumerate(vocabulary)]
    weights = {token: 1.0 for token in vocabulary if token.lower() == bos.lower()}
    return WordWeights(vocabulary, {**weights, bos: 0.0})


# The arrangement "message" ---------------------------------------------------------------------------


def _message_layout(
    transformer: Transformer, config: EncoderConfig, formatter: InstructionFormatter
) -> Compilation | str:
    templates = [t for t in (formatter.template, formatter.instruction_template) if t is not None]
    tokenizer = transformer.tokenizer
    if any(template.copies > 1 for template in templates):
        return "a text that stands twice cannot be cut safely"
    if not all(template.pools_everything for template in templates):
        return "stock pooling cannot follow a span inside a template"
    bos = tokenizer.decode(leading_special_ids(tokenizer))
    chat_template, modality_config = tokenizer.chat_template, transformer.modality_config
    message_format = transformer.input_formatter.message_format
    output = modality_config["text"]
    transformer.modality_config = {"text": output, "message": {**output, "format": "flat"}}
    transformer.input_formatter.message_format = "flat"
    transformer.input_formatter.supported_modalities = list(transformer.modality_config)
    failure = "the tokenizer renders no BOS"
    for opening in (bos, f"{bos} "):
        tokenizer.chat_template = chat_template_for(formatter, opening)
        failure = _differs(transformer, config, formatter, include_prompt=True, dropped=[])
        if not failure:
            guard = [MultiVectorMask([])] if config.attention == "bidirectional" else []
            pooling = Pooling(transformer.get_embedding_dimension(), STOCK_POOLING[config.pooling])
            prompts = {name: formatter.bare_instruction(text) for name, text in config.prompts.items()}
            modules = _normalized([transformer, *guard, pooling], config)
            return Compilation(modules, "message", prompts, "a chat template gives the same tokens")
    tokenizer.chat_template, transformer.modality_config = chat_template, modality_config
    transformer.input_formatter.message_format = message_format
    transformer.input_formatter.supported_modalities = list(modality_config)
    return failure


def chat_template_for(formatter: InstructionFormatter, opening: str) -> str:
    """The templates as one chat template: the user message is the text, the system message the instruction."""
    parts = [
        "{%- set turn = namespace(text='', instruction='') -%}",
        "{%- for message in messages -%}",
        "{%- if message['role'] == 'system' -%}{%- set turn.instruction = message['content'] | trim -%}",
        "{%- else -%}{%- set turn.text = message['content'] -%}{%- endif -%}",
        "{%- endfor -%}",
    ]
    if formatter.instruction_template is None:
        refusal = "This encoder takes no instruction, but a prompt was given. Encode without a prompt."
        parts.append(f"{{%- if turn.instruction -%}}{{{{- raise_exception({_quote(refusal)}) -}}}}{{%- endif -%}}")
        return "".join(parts) + _jinja(formatter.template.pieces, formatter.template, opening)
    before, after = (literal.strip() for literal in formatter.instruction_template.around_instruction())
    if before:
        parts.append(
            f"{{%- if turn.instruction.startswith({_quote(before)}) -%}}"
            f"{{%- set turn.instruction = turn.instruction[{len(before)}:] | trim -%}}{{%- endif -%}}"
        )
    if after:
        parts.append(
            f"{{%- if turn.instruction.endswith({_quote(after)}) -%}}"
            f"{{%- set turn.instruction = turn.instruction[:-{len(after)}] | trim -%}}{{%- endif -%}}"
        )
    instructed = _jinja(formatter.instruction_template.pieces, formatter.instruction_template, opening)
    plain = _jinja(formatter.template.pieces, formatter.template, opening)
    return "".join(parts) + f"{{%- if turn.instruction -%}}{instructed}{{%- else -%}}{plain}{{%- endif -%}}"


def _jinja(pieces: tuple[str, ...], template: Any, opening: str) -> str:
    slots = {"{text}": "turn.text", "{instruction}": "turn.instruction"}
    expressions = [_quote(opening)] if template.bos and opening.strip() else []
    expressions += [slots.get(piece) or _quote(piece) for piece in pieces]
    if template.eos:
        expressions.append("eos_token")
    return "".join(f"{{{{- {expression} -}}}}" for expression in expressions)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


# The arrangement "custom" ------------------------------------------------------------------------------


def _custom(transformer: Transformer, config: EncoderConfig, reason: str) -> Compilation:
    module = BidirectionalTransformer.from_transformer(transformer, config.attention, config.formatter_config())
    width = transformer.get_embedding_dimension()
    pooling: nn.Module
    if config.pooling == "latent_attention":
        pooling = LatentAttentionPooling(width, **config.latent_attention)
    else:
        pooling = SpanPooling(width, config.pooling)
    return Compilation(_normalized([module, pooling], config), "custom", dict(config.prompts), reason)


def _normalized(modules: list[nn.Module], config: EncoderConfig) -> list[nn.Module]:
    return [*modules, Normalize()] if config.normalize else modules


# The proof -----------------------------------------------------------------------------------------------


def _differs(
    transformer: Transformer,
    config: EncoderConfig,
    formatter: InstructionFormatter,
    include_prompt: bool,
    dropped: list[int],
) -> str:
    """Compare stock preprocessing with the specification; return the first difference in words, or nothing."""
    instructions: list[str] = [""]
    if formatter.instruction_template is not None:
        instructions += [*PROOF_INSTRUCTIONS, *filter(None, map(formatter.bare_instruction, config.prompts.values()))]
    with _without_truncation(transformer):
        return _first_difference(transformer, config, formatter, instructions, include_prompt, dropped)


def _first_difference(
    transformer: Transformer,
    config: EncoderConfig,
    formatter: InstructionFormatter,
    instructions: list[str],
    include_prompt: bool,
    dropped: list[int],
) -> str:
    for instruction in instructions:
        for text in PROOF_TEXTS:
            expected = formatter([text], instruction, transformer.tokenizer, UNLIMITED)
            found = _stock_tokens(transformer, text, instruction, include_prompt, dropped)
            if not torch.equal(expected["input_ids"], found["input_ids"]):
                return f"the tokens differ for {text[:40]!r} with instruction {instruction!r}"
            if not torch.equal(_effective(expected["pooling_mask"], config), _effective(found["pooling_mask"], config)):
                return f"other tokens are pooled for {text[:40]!r} with instruction {instruction!r}"
    return ""


@contextmanager
def _without_truncation(transformer: Transformer) -> Iterator[None]:
    """Compare whole strings, however short the encoder's own limit is."""
    limit = transformer.max_seq_length
    transformer.max_seq_length = UNLIMITED
    try:
        yield
    finally:
        transformer.max_seq_length = limit
        transformer._prompt_length_mapping.clear()


def _stock_tokens(
    transformer: Transformer, text: str, instruction: str, include_prompt: bool, dropped: list[int]
) -> dict[str, torch.Tensor]:
    """What stock modules read and pool for one text."""
    prompt = instruction if "message" in transformer.modality_config or not instruction else f"{instruction} "
    features = transformer.preprocess([text], prompt=prompt or None)
    mask = features["attention_mask"].clone()
    if not include_prompt:
        mask[:, : features.get("prompt_length") or 0] = 0
    for token in dropped:
        mask[features["input_ids"] == token] = 0
    return {"input_ids": features["input_ids"], "pooling_mask": mask}


def _effective(mask: torch.Tensor, config: EncoderConfig) -> torch.Tensor:
    """The tokens that decide the vector: all that are pooled, or the last of them."""
    if config.pooling == "last_token":
        return mask.shape[1] - 1 - mask.flip(1).argmax(dim=1)
    return mask
