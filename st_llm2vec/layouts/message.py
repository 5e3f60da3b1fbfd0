"""Stock modules with a chat template: the text is the user message, the instruction the system message.

    Transformer (message modality) -> MultiVectorMask -> Pooling -> Normalize

Everything in the template is pooled. Stock preprocessing cuts the rendered string and then puts the template's last
tokens back, so a long text is cut and the suffix stays, as long as the text stands in the template once.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Sequence
from dataclasses import replace

from sentence_transformers.base.modules import Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn
from transformers import PreTrainedTokenizerBase

from st_llm2vec.layouts.reload import reload_reader, with_tokenizer
from st_llm2vec.layouts.special_tokens import UNBROKEN, Breaks, without_marks
from st_llm2vec.modules.formatter import InstructionFormatter
from st_llm2vec.modules.special_tokens import leading_special_ids
from st_llm2vec.proof.same_tokens import CannotSay, Case, Specification, prove_same_tokens, stock_pooling
from st_llm2vec.proof.texts import FEW_TEXTS, TEXTS
from st_llm2vec.recipe.template import Template

READS_MESSAGES = (
    "{%- set turn = namespace(text='', instruction='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    "{%- if message['content'] is not string -%}"
    "{{- raise_exception('The instruction must be one string, for all texts of the call.') -}}"
    "{%- endif -%}"
    "{%- set turn.instruction = message['content'] | trim -%}"
    "{%- else -%}{%- set turn.text = message['content'] -%}{%- endif -%}"
    "{%- endfor -%}"
)


def with_chat_template(
    transformer: Transformer, specification: Specification
) -> tuple[list[nn.Module], dict[str, str]]:
    """Say the encoder with stock modules and a chat template.

    Args:
        transformer: A stock ``Transformer``; it is not changed.
        specification: What the modules are to read and pool.

    Returns:
        The modules up to the pooling, and the prompts as they are saved.

    Raises:
        CannotSay: If their folder does not give the specification's tokens.
    """
    config, formatter, tokenizer = specification.config, specification.formatter, specification.tokenizer
    mode = stock_pooling(config)
    templates = [t for t in (formatter.template, formatter.instruction_template) if t is not None]
    if any(template.copies > 1 for template in templates):
        raise CannotSay("a text that stands twice cannot be cut safely")
    if not all(template.pools_everything for template in templates):
        raise CannotSay("stock pooling cannot follow a span inside a template")
    bos = _opening(tokenizer)
    if formatter.instruction_template is not None and formatter.instruction_template.joins_the_instruction:
        raise CannotSay("a chat template drops the blank at an instruction's end")
    cases = told_by_messages(specification, TEXTS)
    refusal = CannotSay("the tokenizer renders no BOS")
    breaks = Breaks.of(tokenizer) if config.split_special_tokens else Breaks(())
    reads = without_marks(tokenizer) if breaks.starts else copy.copy(tokenizer)
    for opening in (bos, f"{bos} "):
        try:
            reads.chat_template = chat_template_for(formatter, opening, breaks)
            reader = reload_reader(_as_messages(transformer, reads))
            prove_same_tokens(reader, specification, cases)
        except CannotSay as error:
            refusal = error
            continue
        guard = [MultiVectorMask([])] if config.attention == "bidirectional" else []
        pooling = Pooling(reader.get_embedding_dimension(), mode)
        prompts = {name: formatter.bare_instruction(text) for name, text in config.prompts.items()}
        return [reader, *guard, pooling], prompts
    raise refusal


def told_by_messages(specification: Specification, texts: Sequence[str]) -> list[Case]:
    """What must give the specification's tokens: every instruction bare, as the system message.

    Args:
        specification: The encoder.
        texts: The texts.

    Returns:
        The cases.
    """
    texts = (*texts, *specification.texts_of_special_tokens)
    return [Case(text, told, told) for told, text in itertools.product(specification.instructions, texts)]


def mend_messages(transformer: Transformer, specification: Specification) -> None:
    """Prove that a module with a chat template, as a folder gave it, reads what it should.

    Args:
        transformer: The module; its tokenizer is replaced if its chat template does not break special tokens yet.
        specification: What it is to read and pool.

    Raises:
        CannotSay: If other tokens are read or pooled.
    """
    config, tokenizer = specification.config, specification.tokenizer
    template = str(tokenizer.chat_template)
    if config.split_special_tokens and not Breaks.in_template(template).starts:
        bos, breaks = _opening(tokenizer), Breaks.of(tokenizer)
        written = {chat_template_for(specification.formatter, opening): opening for opening in (bos, f"{bos} ")}
        if template in written and breaks.starts:
            taught = without_marks(tokenizer)
            taught.chat_template = chat_template_for(specification.formatter, written[template], breaks)
            transformer.processor = transformer.input_formatter.processor = taught
        else:
            specification = replace(specification, config=config.replace(split_special_tokens=False))
    prove_same_tokens(transformer, specification, told_by_messages(specification, FEW_TEXTS))


def _opening(tokenizer: PreTrainedTokenizerBase) -> str:
    """What the tokenizer itself puts before a text, as a string."""
    return "".join(tokenizer.convert_ids_to_tokens(leading_special_ids(tokenizer)))


def _as_messages(transformer: Transformer, tokenizer: PreTrainedTokenizerBase) -> Transformer:
    """A copy of the module that reads texts as messages, through the tokenizer's chat template."""
    reader, output = with_tokenizer(transformer, tokenizer), transformer.modality_config["text"]
    reader.modality_config = {"text": output, "message": {**output, "format": "flat"}}
    reader.input_formatter.message_format = "flat"
    reader.input_formatter.supported_modalities = ["text", "message"]
    return reader


def chat_template_for(formatter: InstructionFormatter, opening: str, breaks: Breaks = UNBROKEN) -> str:
    """The templates as one chat template: the user message is the text, the system message the instruction.

    Args:
        formatter: The templates.
        opening: What the tokenizer itself puts before a text, as a string.
        breaks: Where special tokens in text and instruction are broken.
    """
    parts = [READS_MESSAGES]
    if formatter.instruction_template is None:
        refusal = "This encoder takes no instruction, but a prompt was given. Encode without a prompt."
        parts.append(f"{{%- if turn.instruction -%}}{{{{- raise_exception({_quote(refusal)}) -}}}}{{%- endif -%}}")
        return "".join(parts) + breaks.as_template() + _jinja(formatter.template, opening)
    before, after = formatter.wrapping()
    if before:
        parts.append(
            f"{{%- if turn.instruction.startswith({_quote(before)}) and turn.instruction.endswith({_quote(after)}) "
            f"and turn.instruction | length >= {len(before + after)} -%}}"
            f"{{%- set turn.instruction = turn.instruction[{len(before)}:-{len(after)}] | trim -%}}"
            "{%- endif -%}"
        )
    instructed = _jinja(formatter.instruction_template, opening)
    plain = _jinja(formatter.template, opening)
    parts.append(breaks.as_template())
    return "".join(parts) + f"{{%- if turn.instruction -%}}{instructed}{{%- else -%}}{plain}{{%- endif -%}}"


def _jinja(template: Template, opening: str) -> str:
    slots = {"{text}": "turn.text", "{instruction}": "turn.instruction"}
    expressions = [_quote(opening)] if template.bos and opening.strip() else []
    expressions += [slots.get(piece) or _quote(piece) for piece in template.pieces]
    if template.eos:
        expressions.append("eos_token")
    return "".join(f"{{{{- {expression} -}}}}" for expression in expressions)


def _quote(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
