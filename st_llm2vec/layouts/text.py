"""Stock modules with prompts: the instruction is a prompt, left out of the pooling where the recipe says so.

    Transformer -> MultiVectorMask -> WordWeights -> Pooling(include_prompt=False) -> Normalize

``MultiVectorMask([])`` drops nothing; Sentence Transformers before 6 lacks it, and so cannot load the folder and run a
bidirectional encoder causally. ``WordWeights`` weighs BOS out of the mean.
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator, Sequence
from typing import cast

from sentence_transformers.base.modules import Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Pooling, WordWeights
from tokenizers import AddedToken, Regex, normalizers
from torch import nn
from transformers import PreTrainedTokenizerBase

from st_llm2vec.layouts.reload import reload_reader, with_tokenizer
from st_llm2vec.layouts.special_tokens import keeping_its_backend
from st_llm2vec.modules.formatter import InstructionFormatter
from st_llm2vec.modules.special_tokens import leading_special_ids
from st_llm2vec.proof.same_tokens import (
    CannotSay,
    Case,
    Specification,
    prove_same_tokens,
    stock_pooling,
    tokenizer_of,
)
from st_llm2vec.proof.texts import FEW_TEXTS, TEXTS

logger = logging.getLogger(__name__)
ALL_TEXTS = (*TEXTS, "", " ")  # behind an instruction there may be no text
TOLD_TWICE = (*FEW_TEXTS, "a")  # the last is one token, in whose place one of the instruction's could be pooled


def with_prompts(transformer: Transformer, specification: Specification) -> tuple[list[nn.Module], dict[str, str]]:
    """Say the encoder with stock modules and prompts.

    Args:
        transformer: A stock ``Transformer``; it is not changed.
        specification: What the modules are to read and pool.

    Returns:
        The modules up to the pooling, and the prompts as they are saved.

    Raises:
        CannotSay: If their folder does not give the specification's tokens.
    """
    config, formatter, tokenizer = specification.config, specification.formatter, specification.tokenizer
    bos, mode = leading_special_ids(tokenizer), stock_pooling(config)
    _refuse_other_templates(formatter, bos)
    span = not formatter.template.pools_everything
    if span and config.pooling == "weighted_mean":
        raise CannotSay("the weights must count from the first pooled token")
    drop_bos = span and bool(bos) and config.pooling == "mean"
    if drop_bos and not config.normalize:
        raise CannotSay("without BOS in the mean, stock modules get the direction right but not the length")
    dropped = bos if drop_bos else ()
    transformer = _reader(transformer, specification, ALL_TEXTS, include_prompt=not span, dropped=dropped)
    modules: list[nn.Module] = [transformer]
    if drop_bos or config.attention == "bidirectional":
        modules.append(MultiVectorMask([]))
    if drop_bos:
        modules.append(_word_weights(tokenizer, bos[0]))
    width = transformer.get_embedding_dimension()
    modules.append(Pooling(width, mode, include_prompt=not span))
    return modules, saved_prompts(specification)


def saved_prompts(specification: Specification) -> dict[str, str]:
    """The prompts by name, with the blank that stands before a text.

    Args:
        specification: The encoder.
    """
    bare = specification.formatter.bare_instruction
    return {name: f"{bare(text)} " if bare(text) else "" for name, text in specification.config.prompts.items()}


def _refuse_other_templates(formatter: InstructionFormatter, bos: list[int]) -> None:
    plain, instructed = formatter.template, formatter.instruction_template
    if plain.words() != "{text}" or plain.eos:
        raise CannotSay("the template has words of its own")
    if instructed is not None and (instructed.words() != "{instruction} {text}" or instructed.eos):
        raise CannotSay("the instruction is wrapped in words")
    if instructed is not None and instructed.pools_everything != plain.pools_everything:
        raise CannotSay("instructed and bare texts differ in what is pooled")
    if bos and not plain.bos:
        raise CannotSay("the tokenizer adds a BOS that the template does not have")
    if len(bos) > 1:
        raise CannotSay("the tokenizer puts several tokens before a text")


def mend_prompts(modules: Sequence[nn.Module], specification: Specification) -> None:
    """Prove that modules with prompts, as a folder gave them, read and pool what they should; mend the tokenizer if need be.

    Args:
        modules: The encoder's modules.
        specification: What they are to read and pool.

    Raises:
        CannotSay: If other tokens are read or pooled, and marking the border does not help.
    """
    transformer = cast("Transformer", modules[0])
    include_prompt, dropped = left_out(modules)
    try:
        cases = told_by_prompts(specification, FEW_TEXTS)
        prove_same_tokens(transformer, specification, cases, include_prompt, dropped)
    except CannotSay:
        teach_prompts(modules, specification, FEW_TEXTS)
        logger.warning(
            "The tokenizer had lost what marks the border between instruction and text; it was put back. Save the "
            "encoder again: until then plain Sentence Transformers pools other tokens of instructed texts."
        )


def teach_prompts(modules: Sequence[nn.Module], specification: Specification, texts: Sequence[str] = ALL_TEXTS) -> None:
    """Teach the tokenizer of modules that are made the specification's prompts.

    Args:
        modules: The encoder's modules; the first one's tokenizer is replaced.
        specification: What they are to read and pool.
        texts: What to prove it on.

    Raises:
        CannotSay: If other tokens are read or pooled; then nothing is replaced.
    """
    transformer = cast("Transformer", modules[0])
    taught = _reader(transformer, specification, texts, *left_out(modules))
    transformer.processor = transformer.input_formatter.processor = tokenizer_of(taught)
    transformer._prompt_length_mapping.clear()


def left_out(modules: Sequence[nn.Module]) -> tuple[bool, list[int]]:
    """Whether the pooling counts the prompt in, and the token ids that it leaves out."""
    include_prompt = next(module for module in modules if isinstance(module, Pooling)).include_prompt
    weights = [module for module in modules if isinstance(module, WordWeights)]
    return include_prompt, [one.vocab.index(token) for one in weights for token in _weightless(one)]


def _reader(
    transformer: Transformer,
    specification: Specification,
    texts: Sequence[str],
    include_prompt: bool,
    dropped: Sequence[int],
) -> Transformer:
    """The module with a tokenizer that knows the border, as its folder gives it, proven.

    Raises:
        CannotSay: If other tokens are read or pooled.
    """
    if specification.formatter.instruction_template is not None:
        transformer = _with_border(transformer, specification.own_instructions, blank=not include_prompt)
    transformer = reload_reader(transformer)
    prove_same_tokens(transformer, specification, told_by_prompts(specification, texts), include_prompt, dropped)
    return transformer


def told_by_prompts(specification: Specification, texts: Sequence[str]) -> Iterator[Case]:
    """What must give the specification's tokens.

    This package tells every instruction bare and puts the blank before the text. By plain Sentence Transformers they are
    told with a blank at the end: the same string, so that a few texts show whether the prompt ends where it should. The
    encoder's own may stand before texts that begin with blanks, and be told bare where they are recognised, unless the text
    begins with a tab or a line break, which may be a token by itself.

    Args:
        specification: The encoder.
        texts: The texts.

    Yields:
        The cases.
    """
    own = specification.own_instructions
    texts = (*texts, *specification.texts_of_special_tokens)
    yield from (Case(text, "", "") for text in texts if text.strip())
    for instruction, text in itertools.product(filter(None, specification.instructions), texts):
        follows = text.lstrip(" ")
        yield Case(f" {follows}", instruction, instruction)
        if instruction in own or text in TOLD_TWICE:
            yield Case(text, instruction, f"{instruction} ")
        if instruction in own and is_recognised(instruction) and follows and not follows[0].isspace():
            yield Case(text, instruction, instruction)


def is_recognised(instruction: str) -> bool:
    """Whether the tokenizer may put a blank behind a saved instruction that is passed bare.

    Not behind one of less than five words that ends in a letter or a digit: a text might begin like that and go on.

    Args:
        instruction: The bare instruction.
    """
    return not instruction[-1].isalnum() or len(instruction.split()) >= 5


def _with_border(transformer: Transformer, instructions: list[str], blank: bool) -> Transformer:
    """The module with a tokenizer that has been taught the border between instruction and text.

    With ``blank``, the token of a lone blank is a special one: stock modules do not count a special token at the end of
    a prompt, and this one is part of the text's first token where a text follows. And behind an instruction there is
    one blank, however many the text begins with, and where plain Sentence Transformers glues one that is passed bare to it.
    """
    if not blank and not instructions:
        return transformer
    tokenizer = keeping_its_backend(tokenizer_of(transformer))
    if blank:
        _make_blank_special(tokenizer)
    backend = tokenizer.backend_tokenizer
    steps: list[normalizers.Normalizer] = []
    unclear = [instruction for instruction in instructions if not is_recognised(instruction)]
    if unclear:
        logger.warning(
            "Plain Sentence Transformers reads the prompt %r right by its name and with a blank at its end, but not "
            "encode(texts, prompt=%r), which glues it to the text: a text might begin like that. End the prompt with a "
            "colon to have that read right too.",
            unclear[0],
            unclear[0],
        )
    for instruction in instructions:
        blanks = " *(?=[^ ])| {2,}" if is_recognised(instruction) else " {2,}"
        steps.append(normalizers.Replace(Regex(rf"(?<=\A{re.escape(instruction)})(?:{blanks})"), " "))
    if steps:
        backend.normalizer = normalizers.Sequence([*steps, *([backend.normalizer] if backend.normalizer else [])])
    return with_tokenizer(transformer, tokenizer)


def _make_blank_special(tokenizer: PreTrainedTokenizerBase) -> None:
    """Make a special token of the one that a blank at the end becomes; as a text it is matched standing alone only."""
    bare, told = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("a:", "a: "))
    if told[:-1] != bare:  # then the proof tells what is pooled
        return
    name = str(tokenizer.convert_ids_to_tokens(told[-1]))
    blank = AddedToken(name, special=True, normalized=False, single_word=True)
    tokenizer.add_special_tokens({"extra_special_tokens": [blank]}, replace_extra_special_tokens=False)


def _weightless(weights: WordWeights) -> list[str]:
    return [token for token, weight in weights.word_weights.items() if weight == 0]


def _word_weights(tokenizer: PreTrainedTokenizerBase, bos_id: int) -> WordWeights:
    """Weight zero for BOS and one for every other token of the vocabulary."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    vocabulary = [f"<unused {index}>" if token is None else token for index, token in enumerate(tokens)]
    bos = vocabulary[bos_id]
    weights = {token: 1.0 for token in vocabulary if token.lower() == bos.lower()}
    return WordWeights(vocabulary, {**weights, bos: 0.0})
