"""Which tokens are masked, and with what."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast, get_args

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import WordWeights
from torch import Tensor
from transformers import PreTrainedTokenizerBase

Masking = Literal["bert", "all_mask"]

KEPT = 0.1
RANDOM = 0.1


class TokenMasker:
    """Draw masked tokens.

    Args:
        tokenizer: The decoder's tokenizer.
        probability: Share of the tokens to predict, of those that can be: in (0, 1]. Special tokens, padding and the
            first token of a text never are. Of a pair, such as ``(0.15, 0.8)``, each batch has a share of its own, drawn
            uniformly between the two.
        masking: ``"bert"`` shows 80 % of them as the mask token, 10 % as a random token and leaves 10 % as they are;
            ``"all_mask"`` shows them all as the mask token.
        mask_token: A token of the vocabulary; or ``"eos"`` for the end-of-text token, ``"own"`` for the tokenizer's own
            mask token.

    Raises:
        ValueError: If the probability or masking is none, or the mask token is not one token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        probability: float | Sequence[float] = 0.2,
        masking: Masking = "bert",
        mask_token: str = "_",
    ) -> None:
        self.bounds = masking_bounds(probability)
        if masking not in get_args(Masking):
            raise ValueError(
                f"The masking {masking!r} is unknown; choose from {', '.join(get_args(Masking))} (llm2vec's default is bert)."
            )
        self.masking = masking
        self.mask_id = mask_token_id(tokenizer, mask_token)
        self.vocabulary = len(tokenizer)
        self.special_ids = torch.tensor(sorted(set(tokenizer.all_special_ids)), dtype=torch.long)

    def candidates(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Mark the tokens that can be predicted: text with a token before it.

        Args:
            input_ids: Of shape ``(batch, tokens)``.
            attention_mask: Of the same shape.

        Returns:
            Booleans of the same shape.
        """
        read = attention_mask.bool()
        found = read & ~torch.isin(input_ids, self.special_ids.to(input_ids.device))
        found[:, 1:] &= read[:, :-1]
        found[:, 0] = False
        return found

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Mask a batch.

        Args:
            input_ids: Of shape ``(batch, tokens)``.
            attention_mask: Of the same shape.
            generator: Where the draws come from, on the CPU, so that they are the same on any device.

        Returns:
            The ids to read instead, and the booleans of the tokens to predict, both of shape ``(batch, tokens)``.
        """
        low, high = self.bounds
        share = low if low == high else low + (high - low) * torch.rand((), generator=generator).item()
        draws = torch.rand(2, *input_ids.shape, generator=generator).to(input_ids.device)
        replacements = torch.randint(self.vocabulary, input_ids.shape, generator=generator).to(input_ids.device)
        chosen = self.candidates(input_ids, attention_mask) & (draws[0] < share)
        shown = torch.full_like(input_ids, self.mask_id)
        if self.masking == "bert":
            shown = torch.where(draws[1] < KEPT + RANDOM, replacements, shown)
            shown = torch.where(draws[1] < KEPT, input_ids, shown)
        return torch.where(chosen, shown, input_ids), chosen


def masking_bounds(probability: float | Sequence[float]) -> tuple[float, float]:
    """The least and the largest share of tokens that are masked in a batch.

    Args:
        probability: One share, or a pair.

    Returns:
        The two; equal for one share.

    Raises:
        ValueError: If it is neither, or not above 0 and at most 1.
    """
    found = tuple(probability) if isinstance(probability, Sequence) else (probability, probability)
    if len(found) != 2 or not all(isinstance(one, int | float) for one in found) or not 0 < found[0] <= found[1] <= 1:
        raise ValueError(
            f"The masking probability is {probability}; it must be above 0 and at most 1, or a pair of such numbers, the smaller "
            "one first, between which each batch's share is drawn: [0.15, 0.8]."
        )
    return found


def mask_token_id(tokenizer: PreTrainedTokenizerBase, mask_token: str) -> int:
    """Find the mask token's id.

    Args:
        tokenizer: The decoder's tokenizer.
        mask_token: As for :class:`TokenMasker`.

    Returns:
        The id.

    Raises:
        ValueError: If the tokenizer has no such token, or reads it as several.
    """
    if mask_token in ("eos", "own"):
        found = tokenizer.eos_token_id if mask_token == "eos" else tokenizer.mask_token_id
        if found is None:
            what = "end-of-text token" if mask_token == "eos" else "mask token of its own"
            raise ValueError(f'The tokenizer has no {what}; choose another one, such as mask_token="_".')
        return cast("int", found)
    vocabulary = tokenizer.get_vocab()
    if mask_token in vocabulary:
        return vocabulary[mask_token]
    pieces = tokenizer(mask_token, add_special_tokens=False)["input_ids"]
    if len(pieces) != 1 or pieces[0] == tokenizer.unk_token_id:
        raise ValueError(
            f"The mask token {mask_token!r} is {len(pieces)} tokens for this tokenizer "
            f"({tokenizer.convert_ids_to_tokens(pieces)}); it must be one that the vocabulary has. "
            'Choose another, such as "_" (which llm2vec calls blank) or "eos", or add it with add_mask_token(encoder).'
        )
    return pieces[0]


def add_mask_token(encoder: SentenceTransformer, mask_token: str = "<mask>") -> int:
    """Give the tokenizer a mask token of its own, and the decoder an embedding for it.

    Call it before an adapter is attached. The new embedding is drawn by Transformers around the mean of the others, and
    learns only where the embeddings do.

    Args:
        encoder: The encoder.
        mask_token: The token's text; texts that hold it literally are read as it from now on.

    Returns:
        Its id; ``mask_token="own"`` names it in the losses.

    Raises:
        ValueError: If the tokenizer has it, or another mask token, already, or an adapter is attached.
    """
    tokenizer = encoder.tokenizer
    if tokenizer.mask_token_id is not None or mask_token in tokenizer.get_vocab():
        raise ValueError(
            f"The tokenizer already has {tokenizer.mask_token or mask_token!r}; use it: mask_token="
            f"{'own' if tokenizer.mask_token_id is not None else mask_token!r}."
        )
    body: Any = encoder[0].model
    if getattr(body, "peft_config", None):
        raise ValueError("Add the mask token before the adapter is attached; its base has to hold the new embedding.")
    tokenizer.add_special_tokens({"mask_token": mask_token})
    body.resize_token_embeddings(max(len(tokenizer), body.get_input_embeddings().num_embeddings))
    for position, module in enumerate(encoder):
        if isinstance(module, WordWeights) and len(module.vocab) < len(tokenizer):
            words = [*module.vocab, *(tokenizer.convert_ids_to_tokens(range(len(module.vocab), len(tokenizer))))]
            encoder[position] = WordWeights(words, module.word_weights, module.unknown_word_weight)
    return cast("int", tokenizer.mask_token_id)
