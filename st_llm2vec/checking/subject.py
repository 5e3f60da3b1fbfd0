"""What is checked: an encoder, its saved folder, and the texts that it is checked on."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from st_llm2vec.checking.finding import Finding
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.load import load
from st_llm2vec.layouts.special_tokens import special_tokens
from st_llm2vec.proof.distance import largest_cosine_distance
from st_llm2vec.proof.texts import TEXTS
from st_llm2vec.proof.tolerances import FULL_PRECISION, VECTORS

DRAWN = 20
MOST_WORDS = 60
MOST_PROMPTS = 2
MOST_SPECIAL_TOKENS = 4


@dataclass
class Subject:
    """What is checked.

    Args:
        encoder: The encoder.
        saved: A folder that it was saved to.
        folder: The folder that it was loaded from as it is stored, if it was.
    """

    encoder: TextEncoder
    saved: Path
    folder: Path | None

    @cached_property
    def draws(self) -> random.Random:
        """Random draws, the same at every check."""
        return random.Random(0)

    @cached_property
    def special_tokens(self) -> dict[str, int]:
        """The model's own special tokens and their ids, but for the blank that marks the border of an instruction."""
        return {token: index for token, index in special_tokens(self.encoder.tokenizer).items() if len(token) > 1}

    @cached_property
    def special_texts(self) -> list[str]:
        """Texts that hold the model's own special tokens, alone and among words."""
        tokens = list(self.special_tokens)[:MOST_SPECIAL_TOKENS]
        return [text for token in tokens for text in (token, f"a{token} cat {token}sat")]

    @cached_property
    def texts(self) -> list[str]:
        """Odd texts, texts with special tokens, and random ones of one to sixty words."""
        words = [word for text in TEXTS for word in text.split()]
        drawn = [" ".join(self.draws.choices(words, k=self.draws.randint(1, MOST_WORDS))) for _ in range(DRAWN)]
        return [*TEXTS, *self.special_texts, *drawn]

    @cached_property
    def prompt_names(self) -> list[str | None]:
        """No prompt, and the first of those that have words."""
        return [None, *(name for name, text in self.encoder.prompts.items() if text)][: 1 + MOST_PROMPTS]

    @property
    def dtype(self) -> torch.dtype:
        """The type of the decoder's weights."""
        return self.encoder.transformer.model.dtype

    def vectors(self, encoder: TextEncoder, texts: Sequence[str] | None = None, batch_size: int = 32) -> np.ndarray:
        """The vectors of texts (the subject's own if not given), for each prompt; ``(prompts, texts, dimension)``."""
        chosen = self.texts if texts is None else list(texts)
        return np.stack([encode(encoder, chosen, name, batch_size) for name in self.prompt_names])

    @cached_property
    def together(self) -> np.ndarray:
        """The vectors of all texts, encoded in one call."""
        return self.vectors(self.encoder)

    @cached_property
    def alone(self) -> np.ndarray:
        """The vectors of all texts, each encoded in a call of its own."""
        return np.concatenate([self.vectors(self.encoder, [text]) for text in self.texts], axis=1)

    @cached_property
    def in_float32(self) -> np.ndarray:
        """The vectors of all texts by the saved encoder in float32."""
        if self.dtype == torch.float32:
            return self.together
        return self.vectors(load(self.saved, dtype=torch.float32, device=str(self.encoder.device)))

    @cached_property
    def rounding(self) -> float:
        """How far the vectors are from those in float32."""
        return largest_cosine_distance(self.in_float32, self.together)

    def compared(self, check: str, found: str, distance: float) -> Finding:
        """Judge a distance between vectors that are meant to be the same.

        In half precision a deep model rounds further than others. Then what it rounds is measured.

        Args:
            check: What was checked.
            found: What was compared with what.
            distance: The largest cosine distance.
        """
        tolerance = VECTORS.of(self.dtype)
        if distance > tolerance and self.dtype not in FULL_PRECISION:
            tolerance = VECTORS.of(self.dtype, self.rounding)
        return Finding.measured(check, found, distance, tolerance)

    @property
    def compared_on(self) -> str:
        """How much is compared, in words."""
        prompts = len(self.prompt_names) - 1
        told = f", without and with {prompts} prompt{'s' * (prompts > 1)}" if prompts else ""
        return f"{len(self.texts)} texts{told}"


def encode(encoder: TextEncoder, texts: Sequence[str], prompt_name: str | None, batch_size: int = 32) -> np.ndarray:
    """Vectors in float32 on the CPU, whatever the encoder computes in; ``(texts, dimension)``."""
    found = encoder.encode(
        list(texts), prompt_name=prompt_name, batch_size=batch_size, show_progress_bar=False, convert_to_tensor=True
    )
    vectors: np.ndarray = found.float().cpu().numpy()
    return vectors


def not_applicable(check: str, reason: str) -> Iterator[Finding]:
    """The one finding of a check that does not apply."""
    yield Finding(check, None, reason)
