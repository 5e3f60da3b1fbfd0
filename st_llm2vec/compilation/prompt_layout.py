"""Stock modules with prompts: the instruction is a prompt, left out of the pooling where the recipe says so.

    Transformer -> MultiVectorMask -> WordWeights -> Pooling(include_prompt=False) -> Normalize

``MultiVectorMask([])`` drops nothing; Sentence Transformers before 6 lacks it, and so cannot load the folder and run a
bidirectional encoder causally. ``WordWeights`` weighs BOS out of the mean.
"""

from __future__ import annotations

import re

from sentence_transformers.base.modules import Transformer
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask
from sentence_transformers.sentence_transformer.modules import Pooling, WordWeights
from tokenizers import Regex, normalizers
from torch import nn
from transformers import PreTrainedTokenizerBase

from st_llm2vec.compilation.proof import CannotSay, prove_same_tokens, tokenizer_of
from st_llm2vec.modules.instruction import InstructionFormatter, leading_special_ids
from st_llm2vec.recipes import EncoderConfig

STOCK_POOLING = {"mean": "mean", "weighted_mean": "weightedmean", "last_token": "lasttoken"}


def with_prompts(
    transformer: Transformer, config: EncoderConfig, formatter: InstructionFormatter
) -> tuple[list[nn.Module], dict[str, str]]:
    """Say the encoder with stock modules and prompts.

    Args:
        transformer: A stock ``Transformer``; its tokenizer's normalizer may be completed.
        config: The encoder.
        formatter: Its specification.

    Returns:
        The modules up to the pooling, and the prompts as they are saved.

    Raises:
        CannotSay: If they do not give the specification's tokens.
    """
    tokenizer = tokenizer_of(transformer)
    bos = leading_special_ids(tokenizer)
    _refuse_other_templates(formatter, bos)
    span = not formatter.template.pools_everything
    if span and config.pooling == "weighted_mean":
        raise CannotSay("the weights must count from the first pooled token")
    drop_bos = span and bool(bos) and config.pooling == "mean"
    if drop_bos and not config.normalize:
        raise CannotSay("without BOS in the mean, stock modules get the direction right but not the length")
    normalizer = tokenizer.backend_tokenizer.normalizer
    if formatter.instruction_template is not None:
        instructions = [formatter.bare_instruction(prompt) for prompt in config.prompts.values()]
        _mark_border(tokenizer, instructions, strip=span)
    try:
        prove_same_tokens(transformer, config, formatter, include_prompt=not span, dropped=bos if drop_bos else ())
    except CannotSay:
        tokenizer.backend_tokenizer.normalizer = normalizer
        raise
    modules: list[nn.Module] = [transformer]
    if drop_bos or config.attention == "bidirectional":
        modules.append(MultiVectorMask([]))
    if drop_bos:
        modules.append(_word_weights(tokenizer, bos[0]))
    width = transformer.get_embedding_dimension()
    modules.append(Pooling(width, STOCK_POOLING[config.pooling], include_prompt=not span))
    prompts = {name: f"{formatter.bare_instruction(text)} " if text else "" for name, text in config.prompts.items()}
    return modules, prompts


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


def _mark_border(tokenizer: PreTrainedTokenizerBase, instructions: list[str], strip: bool) -> None:
    """Teach the tokenizer the border between instruction and text.

    With ``strip``, trailing blanks go, so that a prompt that ends in a blank counts as many tokens alone as it
    has inside the whole string. And where a saved instruction is passed bare, so that plain Sentence
    Transformers glues it to the text, the blank between them is put back; instructions of less than five words that
    end in a letter or a digit are left alone, since a text might begin like that and go on.
    """
    backend = tokenizer.backend_tokenizer
    steps: list[normalizers.Normalizer] = [normalizers.Strip(left=False, right=True)] if strip else []
    for instruction in instructions:
        if instruction and (not instruction[-1].isalnum() or len(instruction.split()) >= 5):
            border = Regex(rf"(?<=\A{re.escape(instruction)})(?=\S)")
            steps.append(normalizers.Replace(border, " "))
    if backend.normalizer is not None:
        steps.append(backend.normalizer)
    if steps:
        backend.normalizer = normalizers.Sequence(steps)


def _word_weights(tokenizer: PreTrainedTokenizerBase, bos_id: int) -> WordWeights:
    """Weight zero for BOS and one for every other token of the vocabulary."""
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    vocabulary = [f"<unused {index}>" if token is None else token for index, token in enumerate(tokens)]
    bos = vocabulary[bos_id]
    weights = {token: 1.0 for token in vocabulary if token.lower() == bos.lower()}
    return WordWeights(vocabulary, {**weights, bos: 0.0})
