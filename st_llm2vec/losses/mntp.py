"""Masked next token prediction: what teaches a decoder to use the tokens to its right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import get_rank
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from st_llm2vec.losses.masking import Masking, TokenMasker
from st_llm2vec.losses.output_head import (
    HEAD_FILE,
    HEAD_NAME,
    OutputHead,
    attach_head,
    base_head,
    embedding_weight,
    plain_body,
    tied_weights,
)
from st_llm2vec.losses.processes import process_share, unwrapped


class MNTPLoss(nn.Module):
    """Masked next token prediction (LLM2Vec, arXiv 2404.05961, section 2.1).

    Some tokens are masked, and token *i* is predicted from the last state at *i - 1*, through the decoder's own output
    head. Only the masked tokens meet the head: there are no logits for the others. The loss is the mean cross-entropy
    over the masked tokens of all processes.

    What is masked is drawn anew each step, from the generator that the trainer seeds, saves in its checkpoints and
    restores, from ``seed`` and from the process: a resumed run masks what an uninterrupted one would. Without gradients
    (evaluation) the draw depends on the texts and ``seed`` only, and touches no generator.

    Args:
        model: The encoder. Its first module is a decoder that Transformers has a causal language model for.
        mlm_probability: Share of the tokens to predict; the paper uses 0.2 for LLaMA models and 0.8 for Mistral
            (appendix D.1.1). Of a pair, such as ``(0.15, 0.8)``, each batch's share is drawn uniformly between the two, as
            masked diffusion models learn from all shares (LLaDA, arXiv 2502.09992, section 2.1, without its weights).
        masking: ``"bert"`` (80 % mask token, 10 % random, 10 % unchanged; LLaMA models) or ``"all_mask"`` (Mistral).
        mask_token: A token of the vocabulary, ``"eos"`` or ``"own"``; the published models use ``"_"``.
        head: Where the head comes from if it is not tied to the embeddings: a decoder's folder or Hub name, or the
            folder of an encoder that was saved with a trained head. By default the trained head that the encoder was loaded
            with, or the base that its manifest names.
        train_head: Whether the head learns. It then becomes a part of the encoder's first module, so that the trainer's
            optimizer, processes and checkpoints hold it; folders that :class:`TextEncoder` saves carry it as
            ``mntp_head.safetensors``, which encoding does not read. A head that is tied to embeddings that learn too
            stays tied; one tied to frozen embeddings becomes a copy.
        seed: Seed of the masking.
        chunk_size: Masked tokens that meet the head at a time. Their logits, ``chunk_size`` x vocabulary, are made
            again in the backward pass, so that memory does not grow with the batch.

    Raises:
        ValueError: If an argument is out of range, there is no head, or the mask token is not one token.

    Inputs:
        One column of texts or of token blocks (see ``st_llm2vec.data.pack_blocks``); no labels.

    Example:
        >>> from datasets import Dataset
        >>> from st_llm2vec import convert, decoder_path
        >>> from st_llm2vec.losses import MNTPLoss
        >>> loss = MNTPLoss(convert(decoder_path(), "llm2vec"), mlm_probability=0.5)
        >>> features = loss.model.preprocess(["The compass needle points to the north."])
        >>> bool(loss([features], None) > 0)
        True
    """

    def __init__(
        self,
        model: SentenceTransformer,
        mlm_probability: float | Sequence[float] = 0.2,
        masking: Masking = "bert",
        mask_token: str = "_",
        head: str | None = None,
        train_head: bool = False,
        seed: int = 42,
        chunk_size: int = 1024,
    ) -> None:
        super().__init__()
        if chunk_size < 1:
            raise ValueError(f"chunk_size is {chunk_size}; at least one masked token must meet the head at a time.")
        self.masker = TokenMasker(model.tokenizer, mlm_probability, masking, mask_token)
        self.model = model
        self.mask_token = mask_token
        self.train_head = train_head
        self.seed = seed
        self.chunk_size = chunk_size
        self.tied, self.head = _build_head(model, head, train_head)

    @property
    def uses_gradient_cache(self) -> bool:
        """What the host's losses ask the one that they wrap, when they are made; this one cannot be wrapped.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "MNTPLoss predicts tokens and has no vectors that MatryoshkaLoss, AdaptiveLayerLoss or Matryoshka2dLoss could "
            "shorten. Train with it in a stage of its own, and wrap the loss of the stage after, such as SimCSELoss."
        )

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            sentence_features: The features of one column.
            labels: Unused.

        Returns:
            A scalar. It is zero, with zero gradients, where no token was masked.

        Raises:
            ValueError: If there is more than one column.
        """
        columns = list(sentence_features)
        if len(columns) != 1:
            raise ValueError(f"MNTPLoss reads one column of texts; the dataset gave {len(columns)}. Keep one of them.")
        states, targets, rest = self.masked_states(columns[0])
        count = torch.tensor(len(targets), device=states.device)
        return self._summed_loss(states, targets) / process_share(count) + rest

    def masked_states(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Mask a batch and run the encoder on it.

        Args:
            features: Of one column, with ``input_ids`` and ``attention_mask`` of shape ``(batch, tokens)``.

        Returns:
            The states before the masked tokens, of shape ``(masked, hidden)``; the tokens themselves, of shape
            ``(masked,)``; and a zero that ties every other output to the loss, as distributed training wants.
        """
        ids, attention = features["input_ids"], features["attention_mask"]
        shown, chosen = self.masker(ids, attention, self._generator(ids))
        caught: list[Tensor] = []
        hook = unwrapped(self.model)[0].register_forward_hook(
            lambda module, inputs, output: caught.append(output["token_embeddings"])
        )
        try:
            embeddings = self.model({**features, "input_ids": shown})["sentence_embedding"]
        finally:
            hook.remove()
        return caught[0][:, :-1][chosen[:, 1:]], ids[chosen], embeddings.sum() * 0

    def logits(self, states: Tensor) -> Tensor:
        """Let states meet the head.

        Args:
            states: Of shape ``(positions, hidden)``.

        Returns:
            Logits of shape ``(positions, vocabulary)``.
        """
        encoder = unwrapped(self.model)
        embeddings = embedding_weight(plain_body(encoder))
        if not self.train_head:
            embeddings = embeddings.detach()
        head: Any = getattr(encoder[0], HEAD_NAME, None) or self.head
        return head(states.to(embeddings.dtype), dict.fromkeys(self.tied, embeddings))

    def _summed_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        if len(targets) <= self.chunk_size:
            return self._chunk_loss(states, targets)
        pieces = zip(states.split(self.chunk_size), targets.split(self.chunk_size), strict=True)
        losses = [checkpoint(self._chunk_loss, *piece, use_reentrant=False) for piece in pieces]
        return torch.stack(losses).sum()

    def _chunk_loss(self, states: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(self.logits(states).float(), targets, reduction="sum")

    def _generator(self, ids: Tensor) -> torch.Generator:
        draw = int(torch.randint(2**31, ())) if torch.is_grad_enabled() else int(ids.sum())
        return torch.Generator().manual_seed(hash((self.seed, draw, get_rank())) % 2**63)

    def get_config_dict(self) -> dict[str, Any]:
        """The settings, for the model card."""
        low, high = self.masker.bounds
        return {
            "mlm_probability": low if low == high else [low, high],
            "masking": self.masker.masking,
            "mask_token": self.mask_token,
            "train_head": self.train_head,
            "seed": self.seed,
        }


def _build_head(model: SentenceTransformer, source: str | None, train: bool) -> tuple[list[str], OutputHead | None]:
    """The names of the weights that stay tied, and the head; ``None`` for one that is a part of the model."""
    body = plain_body(model)
    tied, own = tied_weights(body)
    trained = source or getattr(model, "trained_head", None)
    if source is None and trained is not None and not (Path(trained) / HEAD_FILE).is_file():
        raise ValueError(
            f"The encoder was loaded with the trained head {Path(trained) / HEAD_FILE}, which is not there any more. Name the "
            'folder that has it, or the decoder whose own head to begin with: MNTPLoss(model, head="org/decoder").'
        )
    weights = _trained_head(body, trained, {*tied, *own}) if trained is not None else {}
    own = [name for name in own if name not in weights]
    if own:
        weights |= base_head(body, *_base(model, body, source), own)
    embeddings = embedding_weight(body)
    if train and not embeddings.requires_grad:
        weights |= {name: embeddings.detach().clone() for name in tied if name not in weights}
    tied = [name for name in tied if name not in weights]
    head = OutputHead(body, weights, trainable=train)
    if not (train and weights):
        return tied, head
    if not hasattr(model, "manifest"):
        raise ValueError("A head that learns is saved by this package's encoders only; use convert or st_llm2vec.load.")
    attach_head(model, head)
    return tied, None


def _trained_head(body: Any, source: str | Path, known: set[str]) -> dict[str, Tensor]:
    """The weights of a trained head in an encoder's folder; none where the folder holds no such head."""
    path = Path(source) / HEAD_FILE
    if not path.is_file():
        return {}
    weights = load_file(path)
    if not set(weights) <= known:
        raise ValueError(f"{path} holds {', '.join(weights)}; the head of this decoder has {', '.join(sorted(known))}.")
    return {name: weight.to(body.dtype) for name, weight in weights.items()}


def _base(model: SentenceTransformer, body: Any, source: str | None) -> tuple[str, str | None]:
    """The decoder that the head comes from, and its revision."""
    if source is not None:
        return source, None
    manifest = getattr(model, "manifest", None)
    if manifest is None or not manifest.base.get("name"):
        raise ValueError(
            f"The output head of {type(body).__name__} is not tied to its embeddings, and an encoder does not keep it. "
            'Name the decoder it comes from: MNTPLoss(model, head="org/decoder").'
        )
    return manifest.base["name"], manifest.base.get("revision")
