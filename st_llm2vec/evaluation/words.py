"""Vectors of given words, from the states of any encoder's tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.util import batch_to_device
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerBase

from st_llm2vec.encoding.batches import batches_of, streams_on, token_budget
from st_llm2vec.encoding.cpu_streams import in_streams
from st_llm2vec.modules.formatter import UNLIMITED
from st_llm2vec.modules.special_tokens import special_ids_around

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Window:
    """A stretch of a sentence that passes the model at once, and what its states count for.

    Args:
        sentence: The sentence's number.
        ids: Its token ids, with the special tokens around.
        positions: Where among the ids the states stand that count.
        words: For each of them the word, by its number in the sentence.
        shares: One over the number of that word's pieces.
    """

    sentence: int
    ids: list[int]
    positions: Integers
    words: Integers
    shares: NDArray[np.float32]


def encode_words(
    encoder: SentenceTransformer,
    sentences: Sequence[Sequence[str]],
    shift: bool = False,
    *,
    batch_size: int = 32,
    show_progress_bar: bool = False,
) -> list[NDArray[np.float32]]:
    """Compute a vector for each word of sentences that are lists of words.

    The words are joined by blanks and read as one text, with the special tokens that the tokenizer itself puts around a
    text and without the encoder's template, prompts or pooling; special tokens among the words are text. A word's vector
    is the mean of the last states of its pieces: the tokens that share a character with it. A token over two words is a
    piece of both.

    A sentence longer than the encoder's context is read in windows that overlap by half, and each token's state is taken
    from the window in which it stands nearest to the middle.

    Args:
        encoder: Any ``SentenceTransformer`` with a ``Transformer`` and a fast tokenizer inside.
        sentences: The words of each sentence.
        shift: Whether each piece's state is that of the position before it, where masked next token prediction predicts it
            (LLM2Vec, arXiv 2404.05961, appendix D.1.3): with two pieces, the vector of the first word is the mean of the
            states of BOS and of its first piece. Where the tokenizer puts nothing before a text, the very first piece has
            its own state.
        batch_size: Bounds a batch's tokens to those of so many sentences of the greatest length.
        show_progress_bar: Whether to show how many windows are done.

    Returns:
        For each sentence an array of shape ``(words, hidden)``.

    Raises:
        ValueError: If a sentence is no list of words or has none, a word is empty or leaves no token, the tokenizer is
            slow, or the special tokens leave no room in the context. Sentences and words are counted from 0.

    Example:
        >>> from st_llm2vec import convert, decoder_path
        >>> encoder = convert(decoder_path(), "llm2vec")
        >>> [vectors.shape for vectors in encode_words(encoder, [["The", "man"], ["A", "violin", "sounds"]])]
        [(2, 192), (3, 192)]
    """
    transformer, tokenizer = readers(encoder)
    for number, words in enumerate(sentences):
        _require_words(number, words)
    if not len(sentences):
        return []
    windows = _windows(sentences, tokenizer, min(encoder.max_seq_length or UNLIMITED, UNLIMITED), shift)
    rows = [{"input_ids": torch.tensor(one.ids), "attention_mask": torch.ones(len(one.ids)).long()} for one in windows]
    device, modality = encoder.device, next(iter(transformer.modality_config))
    streams = streams_on(device)

    @torch.inference_mode()
    def read(batch: tuple[list[int], dict[str, Tensor]]) -> list[tuple[Window, Tensor]]:
        members, features = batch
        states = transformer({**batch_to_device(features, device), "modality": modality})["token_embeddings"]
        return [
            (windows[one], _shares_of_words(of_text, windows[one]))
            for one, of_text in zip(members, states.float().cpu(), strict=True)
        ]

    width = transformer.get_embedding_dimension()
    vectors = [torch.zeros(len(words), width) for words in sentences]
    batches = batches_of([[row] for row in rows], encoder, token_budget(encoder, batch_size, device, streams), streams)
    training = transformer.training
    transformer.eval()
    try:
        with tqdm(total=len(windows), desc="Sentences", disable=not show_progress_bar) as progress:
            for found in in_streams(read, batches, streams):
                for window, states in found:
                    vectors[window.sentence].index_add_(0, torch.from_numpy(window.words), states)
                progress.update(len(found))
    finally:
        transformer.train(training)
    return [one.numpy() for one in vectors]


def _shares_of_words(states: Tensor, window: Window) -> Tensor:
    """What each state of a window adds to its word's vector, of shape ``(pieces, hidden)``."""
    return states[torch.from_numpy(window.positions)] * torch.from_numpy(window.shares).unsqueeze(1)


def readers(encoder: SentenceTransformer) -> tuple[Transformer, PreTrainedTokenizerBase]:
    """An encoder's transformer and its tokenizer, which must tell where its tokens stand in a text."""
    transformer: Any = encoder[0]
    if not isinstance(transformer, Transformer):
        raise ValueError(
            f"The first module of this encoder is {type(transformer).__name__}, which has no states of tokens; this needs "
            "an encoder that begins with a Transformer."
        )
    tokenizer = transformer.tokenizer
    if tokenizer is None or not tokenizer.is_fast:
        raise ValueError(
            f"The tokenizer of this encoder ({type(tokenizer).__name__}) does not tell which characters its tokens stand "
            "for. This needs a fast tokenizer, one with a tokenizer.json."
        )
    return transformer, tokenizer


def _require_words(number: int, words: Sequence[str]) -> None:
    if isinstance(words, str):
        raise ValueError(
            f"Sentence {number} (the first is 0) is the text {words[:40]!r}, where a list of words is needed, such as "
            '["The", "man"]. Split it first; a single sentence is a list of one list.'
        )
    if not len(words):
        raise ValueError(f"Sentence {number} (the first is 0) has no words; leave it out.")
    for place, word in enumerate(words):
        if not isinstance(word, str) or not word.strip():
            what = "is empty or blank" if isinstance(word, str) else f"is of type {type(word).__name__}"
            raise ValueError(f"Word {place} of sentence {number} (the first is 0) {what}: {word!r}. Give a text.")


def _windows(
    sentences: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, context: int, shift: bool
) -> list[Window]:
    before, after = special_ids_around(tokenizer)
    room = context - len(before) - len(after)
    if room < 1:
        raise ValueError(
            f"The tokenizer's special tokens ({len(before) + len(after)}) leave no room in a context of {context} tokens; "
            "set the encoder's max_seq_length higher."
        )
    encoded = tokenizer(
        [" ".join(words) for words in sentences],
        add_special_tokens=False,
        split_special_tokens=True,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    windows: list[Window] = []
    for number, words in enumerate(sentences):
        ids = encoded["input_ids"][number]
        pieces, of_words = _pieces(np.reshape(encoded["offset_mapping"][number], (-1, 2)), words)
        counts = np.bincount(of_words, minlength=len(words))
        if not counts.all():
            place = int(counts.argmin())
            raise ValueError(
                f"Word {place} of sentence {number} (the first is 0), {words[place]!r}, leaves no token: the tokenizer drops "
                "its characters. Leave it out or write it otherwise."
            )
        states = np.maximum(pieces - 1, -1 if before else 0) if shift else pieces
        shares = (1 / counts[of_words]).astype(np.float32)
        for start, own in _stretches(len(ids), room, states):
            row = [*before, *ids[start : start + room], *after]
            positions = states[own] - start + len(before)
            windows.append(Window(number, row, positions, of_words[own], shares[own]))
    return windows


def _pieces(offsets: Integers, words: Sequence[str]) -> tuple[Integers, Integers]:
    """All pairs of a token and a word that share a character, as two arrays."""
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    starts = ends - [len(word) for word in words]
    first = np.searchsorted(ends, offsets[:, 0], side="right")
    behind = np.searchsorted(starts, offsets[:, 1], side="left")
    counts = np.where(offsets[:, 1] > offsets[:, 0], np.maximum(behind - first, 0), 0)
    tokens = np.repeat(np.arange(len(offsets)), counts)
    within = np.arange(len(tokens)) - np.repeat(np.cumsum(counts) - counts, counts)
    return tokens, first[tokens] + within


def _stretches(length: int, room: int, states: Integers) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Where each window of a text begins, and which of the states, by their tokens' numbers, are taken from it."""
    last = max(length - room, 0)
    starts = np.append(np.arange(0, last, max(room // 2, 1)), last)
    borders = (starts[1:] + starts[:-1] + room - 1) / 2
    windows = np.searchsorted(borders, states)
    for number, start in enumerate(starts.tolist()):
        yield start, windows == number
