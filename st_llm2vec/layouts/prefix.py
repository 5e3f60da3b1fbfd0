"""Stock modules that every server can say: the instruction is a prefix of the text, and all tokens are pooled.

    Transformer -> Pooling -> Normalize

The tokenizer stays the decoder's own, and the folder has nothing that a server would have to know of: what is embedded is
``prompt + text``. Sentence Transformers before 6, which would run a bidirectional encoder causally, cannot load the folder for
its ``Normalize``, whose place is a new one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import nn

from st_llm2vec.layouts.reload import reload_reader
from st_llm2vec.modules.formatter import InstructionFormatter
from st_llm2vec.modules.special_tokens import leading_special_ids
from st_llm2vec.proof.same_tokens import CannotSay, Case, Specification, prove_same_tokens, stock_pooling
from st_llm2vec.proof.texts import TEXTS


def with_prefix(transformer: Transformer, specification: Specification) -> tuple[list[nn.Module], dict[str, str]]:
    """Say the encoder with stock modules that pool the whole of prompt and text.

    Args:
        transformer: A stock ``Transformer``; it is not changed.
        specification: What the modules are to read and pool.

    Returns:
        The modules up to the pooling, and the prompts as they are saved, each with a blank at its end.

    Raises:
        CannotSay: If their folder does not give the specification's tokens.
    """
    config, formatter = specification.config, specification.formatter
    mode = stock_pooling(config)
    _refuse_other_templates(formatter, leading_special_ids(specification.tokenizer))
    if not config.normalize:
        raise CannotSay("only a folder with Normalize is refused by Sentence Transformers before 6")
    reader = reload_reader(transformer)
    prove_same_tokens(reader, specification, told_by_prefixes(specification, TEXTS))
    prompts = {name: formatter.bare_instruction(text) for name, text in config.prompts.items()}
    return [reader, Pooling(reader.get_embedding_dimension(), mode)], prompts


def told_by_prefixes(specification: Specification, texts: Sequence[str]) -> Iterator[Case]:
    """What must give the specification's tokens: every instruction with a blank at its end, before any text.

    Args:
        specification: The encoder.
        texts: The texts.

    Yields:
        The cases.
    """
    texts = (*texts, *specification.texts_of_special_tokens)
    for instruction in specification.instructions:
        told = specification.formatter.bare_instruction(instruction)
        yield from (Case(text, told, told) for text in texts)


def _refuse_other_templates(formatter: InstructionFormatter, bos: list[int]) -> None:
    plain, instructed = formatter.template, formatter.instruction_template
    if instructed is None or not instructed.joins_the_instruction:
        raise CannotSay("the text does not follow the instruction at once")
    if plain.words() != "{text}" or instructed.words() != "{instruction}{text}":
        raise CannotSay("the template has words of its own")
    if not (plain.pools_everything and instructed.pools_everything):
        raise CannotSay("only a part is pooled")
    if plain.eos or instructed.eos or (bos and not (plain.bos and instructed.bos)):
        raise CannotSay("the template's special tokens are not those that the tokenizer adds")
