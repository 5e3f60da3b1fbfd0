"""What an encoder makes of a query and passages, and what the words of these alone would give."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sentence_transformers.util import cos_sim

from st_llm2vec.encoding.inputs import require_unicode
from st_llm2vec.encoding.text_reader import TextReader

MOST_PASSAGES, LONGEST = 24, 20_000


@dataclass(frozen=True)
class Question:
    """What is typed into the page.

    Args:
        query: What is looked for.
        passages: Where.
        instruction: The query's bare instruction.
    """

    query: str
    passages: tuple[str, ...]
    instruction: str | None = None

    @classmethod
    def read(cls, sent: Mapping[str, Any]) -> Question:
        """Read what a browser sent: ``query``, ``passages`` (one a line) and ``instruction``.

        Args:
            sent: The fields.

        Raises:
            ValueError: If something is missing, too long or too much.

        Example:
            >>> Question.read({"query": " a cat ", "passages": "A cat sleeps.\\n\\nIt rains.\\n", "instruction": ""})
            Question(query='a cat', passages=('A cat sleeps.', 'It rains.'), instruction=None)
        """
        fields = {name: sent.get(name, "") for name in ("query", "passages", "instruction")}
        for name, text in fields.items():
            if not isinstance(text, str):
                raise ValueError(f"The field {name} holds no text.")
            require_unicode(text, f"The field {name}")
        query, instruction = fields["query"].strip(), fields["instruction"].strip()
        passages = tuple(line.strip() for line in fields["passages"].splitlines() if line.strip())
        if not query:
            raise ValueError("The query is empty. Type what you look for.")
        if len(passages) < 2:
            found = "There is one passage" if passages else "There are no passages"
            raise ValueError(f"{found}. Type two at least, one a line, so that there is something to compare.")
        if len(passages) > MOST_PASSAGES:
            raise ValueError(f"There are {len(passages)} passages, and the page has room for {MOST_PASSAGES}.")
        longest = max(map(len, (query, instruction, *passages)))
        if longest > LONGEST:
            raise ValueError(f"A text has {longest:,} characters, and the page takes {LONGEST:,}. Shorten it.")
        return cls(query, passages, instruction or None)


@dataclass(frozen=True)
class Similarities:
    """How near texts are to each other.

    Args:
        to_query: Of each passage to the query, of shape ``(passages,)``.
        passages: Of each passage to each, of shape ``(passages, passages)``.
    """

    to_query: np.ndarray
    passages: np.ndarray

    @property
    def order(self) -> list[int]:
        """The passages from the nearest to the farthest; equal ones as they were typed."""
        return [int(one) for one in np.argsort(-self.to_query, kind="stable")]


def by_encoder(encoder: TextReader, question: Question) -> Similarities:
    """Compare texts as the library does: ``encode_query``, ``encode_document`` and ``similarity``.

    Args:
        encoder: The encoder.
        question: The texts. Where the recipe takes no instruction, the query is encoded without it.
    """
    instruction = question.instruction if takes_instruction(encoder) else None
    query = encoder.encode_query([question.query], prompt=instruction, convert_to_tensor=True, show_progress_bar=False)
    passages = encoder.encode_document(list(question.passages), convert_to_tensor=True, show_progress_bar=False)
    near, each = encoder.similarity(query, passages)[0], encoder.similarity(passages, passages)
    return Similarities(near.float().cpu().numpy(), each.float().cpu().numpy())


def by_words_alone(encoder: TextReader, question: Question) -> Similarities:
    """Compare texts free of attention: by the cosine of the mean input embedding of their tokens.

    It is what the decoder knows of each token before its first layer. There is no template, no instruction and no order of
    words: two texts of the same tokens have similarity 1. What an encoder finds beyond it comes of its template and its layers.

    Args:
        encoder: The encoder, for its tokenizer and its decoder's input embeddings.
        question: The texts, which are read whole; the instruction is left out.
    """
    query, *passages = (mean_embedding(encoder, text) for text in (question.query, *question.passages))
    table = torch.stack(passages)
    return Similarities(cos_sim(query, table)[0].numpy(), cos_sim(table, table).numpy())


@torch.inference_mode()
def mean_embedding(encoder: TextReader, text: str) -> torch.Tensor:
    """The mean of the input embeddings of a text's own tokens.

    Args:
        encoder: The encoder.
        text: The text.

    Returns:
        Of shape ``(hidden,)``; zeros where the tokenizer makes nothing of the text.
    """
    table: Any = encoder.transformer.model.get_input_embeddings()
    ids = encoder.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    embeddings = table(torch.tensor(ids, dtype=torch.long, device=table.weight.device))
    return embeddings.float().sum(dim=0).cpu() / max(len(ids), 1)


def takes_instruction(encoder: TextReader) -> bool:
    """Whether the recipe has a place for an instruction; one that is unknown may."""
    return encoder.manifest is None or encoder.manifest.config.instruction_template is not None
