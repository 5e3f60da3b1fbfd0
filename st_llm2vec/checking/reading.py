"""What is read and pooled is what the recipe says: the text, to the token, long or hostile."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from st_llm2vec.checking.finding import Finding
from st_llm2vec.checking.subject import Subject, not_applicable
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.modules.attention import without_cache
from st_llm2vec.modules.formatter import UNLIMITED, InstructionFormatter
from st_llm2vec.modules.span_pooling import span_weights
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.recipe.config import EncoderConfig
from st_llm2vec.recipe.poolings import POOLINGS

NO_MANIFEST = "There is no st_llm2vec.json to say what is meant; the folder that convert or training wrote has one."
LONG = ("a violin is carved from spruce and ", "the compass needle points north or ")
SHORT = ("spruce", "north")


def specified(subject: Subject) -> Iterator[Finding]:
    """The vectors are those of the recipe: of the tokens that it pools, in a direct pass of each text by itself."""
    encoder, name = subject.encoder, "what is pooled"
    if encoder.manifest is None:
        yield from not_applicable(name, NO_MANIFEST)
        return
    config = encoder.manifest.config
    instructions = [encoder.saved_instruction(one) for one in subject.prompt_names]
    wanted = np.stack([specified_vectors(encoder, config, subject.texts, told) for told in instructions])
    distance = largest_cosine_distance(subject.alone, wanted)
    said = f"{subject.compared_on}, and a direct pass of each over the tokens that the recipe {config.name} pools"
    yield subject.compared(name, said, distance)


@torch.no_grad()
def specified_vectors(
    encoder: TextEncoder, config: EncoderConfig, texts: Sequence[str], instruction: str | None
) -> np.ndarray:
    """Each text's vector by the formula of its pooling, from a pass of its own over the formatter's tokens.

    Args:
        encoder: Its decoder and tokenizer are used, and its pooling where that has weights of its own.
        config: What it is meant to be.
        texts: The texts.
        instruction: Their instruction.

    Returns:
        The vectors in float32, of shape ``(texts, dimension)``.
    """
    encoder.eval()
    model = encoder.transformer.model
    formatter = InstructionFormatter(**config.formatter_config())
    limit = encoder.max_seq_length or UNLIMITED
    vectors = []
    for text in texts:
        row = formatter([text], instruction, encoder.tokenizer, limit)
        row = {key: value.to(encoder.device) for key, value in row.items()}
        output = model(input_ids=row["input_ids"], output_hidden_states=config.layer != -1, **without_cache(model))
        states = output.last_hidden_state if config.layer == -1 else output.hidden_states[config.layer]
        if config.pooling in POOLINGS:
            weights = span_weights(row["pooling_mask"], config.pooling)
            vector = (weights.unsqueeze(-1) * states.float()).sum(dim=1)
        else:
            vector = encoder[1]({**row, "token_embeddings": states})["sentence_embedding"].float()
        vectors.append(vector[:, : encoder.truncate_dim])
    return torch.cat(vectors).cpu().numpy()


def truncated(subject: Subject) -> Iterator[Finding]:
    """A text that is too long loses its end, and nothing of what the template puts before and behind it."""
    encoder, name = subject.encoder, "truncation"
    limit = encoder.max_seq_length
    if limit is None or limit >= UNLIMITED:
        yield from not_applicable(name, "The encoder has no longest input.")
        return
    wrong = []
    for prompt in subject.prompt_names:
        read = _reader(encoder, encoder.saved_instruction(prompt))
        short = [read(text) for text in SHORT]
        before, behind = _shared(*short), _shared(*(ids[::-1] for ids in short))
        for text in LONG:
            ids = read(text * limit)
            kept = ids[: len(before)] == before and ids[::-1][: len(behind)] == behind
            if not kept or not len(before) + len(behind) < len(ids) <= limit:
                wrong.append(f"of {len(ids)} tokens, for at most {limit}, with the prompt {prompt}")
    count = len(LONG) * len(subject.prompt_names)
    said = f"{count} texts of more than {limit} tokens keep the template around them"
    if wrong:
        said = f"A long text is read wrongly: {wrong[0]}; the template around it must stay."
    yield Finding.measured(name, said, len(wrong), 0)


def _reader(encoder: TextEncoder, instruction: str | None) -> Callable[[str], list[int]]:
    """From a text to the ids that the model reads of it."""

    def read(text: str) -> list[int]:
        features = encoder.preprocess([text], prompt=instruction)
        ids: list[int] = features["input_ids"][features["attention_mask"].bool()].tolist()
        return ids

    return read


def _shared(first: list[int], second: list[int]) -> list[int]:
    """What both begin with."""
    return [one for one, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))]


def text_is_text(subject: Subject) -> Iterator[Finding]:
    """Special tokens in a text are characters: they neither end it nor stand for anything else."""
    encoder, name = subject.encoder, "special tokens in texts"
    manifest = encoder.manifest
    if manifest is not None and not manifest.config.split_special_tokens:
        yield from not_applicable(name, "The recipe honours special tokens in texts (split_special_tokens is off).")
        return
    if not subject.special_texts:
        yield from not_applicable(name, "The tokenizer has no special tokens.")
        return
    ids = set(subject.special_tokens.values())
    wrong = []
    for prompt in subject.prompt_names:
        read = _reader(encoder, encoder.saved_instruction(prompt))
        plain = sum(one in ids for one in read("a cat"))
        wrong += [text for text in subject.special_texts if sum(one in ids for one in read(text)) != plain]
    if wrong and manifest is None:
        yield from not_applicable(name, f"{wrong[0]!r} is read as a control token. {NO_MANIFEST}")
        return
    said = f"{len(subject.special_texts)} texts with the model's own special tokens are read as they stand"
    if wrong:
        said = f"{wrong[0]!r} is read as a control token, and not as the text that it is."
    yield Finding.measured(name, said, len(wrong), 0)
