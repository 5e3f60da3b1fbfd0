"""A text has one vector: the attention is what it is meant to be, and neighbours and padding change nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from sentence_transformers.base.modules import Transformer
from sentence_transformers.util import batch_to_device
from transformers import PreTrainedTokenizerBase

from st_llm2vec.checking.finding import Finding
from st_llm2vec.checking.subject import Subject, encode
from st_llm2vec.modules.attention import configured_attention, probe_attention, require_attention
from st_llm2vec.packed.enable import disable_padding_free, enable_padding_free, padding_free
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.left_padding import left_padding_changes, needs_position_ids

BATCHES = 20
MOST_IN_A_BATCH = 16
IN_A_PADDED_BATCH = 8


def attention(subject: Subject) -> Iterator[Finding]:
    """The model attends in both directions or only backwards, as its recipe or its configuration says."""
    manifest, model = subject.encoder.manifest, subject.encoder.transformer.model
    meant = manifest.config.attention if manifest is not None else configured_attention(model)
    probe = probe_attention(model)
    if manifest is None and meant == "causal":  # what decoders and encoders alike say, whose settings do not name it
        said = f"There is no st_llm2vec.json to say what the attention is meant to be. It is {probe.describe()}."
        yield Finding("attention", None, said)
        return
    try:
        require_attention(probe, model, meant, "The encoder")
    except ValueError as error:
        yield Finding("attention", False, str(error))
    else:
        yield Finding("attention", True, f"{probe.describe()}, as it is meant to be")


def random_batches(subject: Subject) -> Iterator[Finding]:
    """A text alone has the vector that it has in random batches, among any neighbours."""
    largest, compared = largest_cosine_distance(subject.alone, subject.together), len(subject.texts)
    most = min(MOST_IN_A_BATCH, len(subject.texts))
    for _ in range(BATCHES):
        rows = subject.draws.sample(range(len(subject.texts)), k=subject.draws.randint(2, most))
        prompt = subject.draws.randrange(len(subject.prompt_names))
        texts = [subject.texts[row] for row in rows]
        batch_size = subject.draws.randint(1, len(rows))
        found = encode(subject.encoder, texts, subject.prompt_names[prompt], batch_size)
        largest = max(largest, largest_cosine_distance(found, subject.alone[prompt, rows]))
        compared += len(rows)
    said = f"{compared} texts, alone and in {BATCHES + 1} batches of 2 to {len(subject.texts)} in random order"
    yield subject.compared("texts in random batches", said, largest)


def padded(subject: Subject) -> Iterator[Finding]:
    """Padding on either side, or none at all, leaves the vectors where they are."""
    encoder, transformer = subject.encoder, subject.encoder.transformer
    sides = ["right", "left"]
    if left_padding_changes(transformer.model) and not needs_position_ids(transformer.model):
        sides = [encoder.tokenizer.padding_side]
    with _padded(transformer):
        for side in sides:
            with _side(encoder.tokenizer, side):
                found = np.stack([_in_padded_batches(subject, name) for name in subject.prompt_names])
            distance = largest_cosine_distance(found, subject.alone)
            said = f"{subject.compared_on}, in batches padded on the {side} and alone"
            yield subject.compared(f"padding on the {side}", said, distance)


@torch.inference_mode()
def _in_padded_batches(subject: Subject, prompt_name: str | None) -> np.ndarray:
    """The vectors of all texts by the modules themselves: ``encode`` sorts texts, and pads on the right."""
    encoder = subject.encoder.eval()
    instruction = encoder.saved_instruction(prompt_name)
    vectors = []
    for start in range(0, len(subject.texts), IN_A_PADDED_BATCH):
        features = encoder.preprocess(subject.texts[start : start + IN_A_PADDED_BATCH], prompt=instruction)
        found = encoder(batch_to_device(features, encoder.device))["sentence_embedding"]
        vectors.append(found[:, : encoder.truncate_dim].float().cpu().numpy())
    return np.concatenate(vectors)


@contextmanager
def _padded(transformer: Transformer) -> Iterator[None]:
    """Let batches pass the model with padding, where they otherwise pass it without."""
    without = padding_free(transformer) is not None
    disable_padding_free(transformer)
    try:
        yield
    finally:
        if without:
            enable_padding_free(transformer)


@contextmanager
def _side(tokenizer: PreTrainedTokenizerBase, side: str) -> Iterator[None]:
    before = tokenizer.padding_side
    tokenizer.padding_side = side
    try:
        yield
    finally:
        tokenizer.padding_side = before
