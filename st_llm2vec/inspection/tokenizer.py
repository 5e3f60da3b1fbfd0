"""What matters of a tokenizer here."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from st_llm2vec.modules.special_tokens import leading_special_ids


@dataclass(frozen=True)
class TokenizerFacts:
    """A tokenizer in a few words.

    Args:
        family: How it treats spaces, in words.
        tokens: Size of its vocabulary.
        bos: The tokens it puts before a text, as text; empty if none.
        eos: The end-of-text token, if it has one.
        pad: The padding token, if it has one.
        chat_template: Whether it has a chat template.
    """

    family: str
    tokens: int
    bos: str
    eos: str | None
    pad: str | None
    chat_template: bool


def tokenizer_facts(tokenizer: PreTrainedTokenizerBase) -> TokenizerFacts:
    """See what spaces, special tokens and chat template a tokenizer has."""
    return TokenizerFacts(
        family=_family(tokenizer),
        tokens=len(tokenizer),
        bos="".join(tokenizer.convert_ids_to_tokens(leading_special_ids(tokenizer))),
        eos=tokenizer.eos_token,
        pad=tokenizer.pad_token,
        chat_template=bool(tokenizer.chat_template),
    )


def _family(tokenizer: PreTrainedTokenizerBase) -> str:
    backend = tokenizer.backend_tokenizer
    kind = type(backend.model).__name__
    if "ByteLevel" in str(backend.pre_tokenizer):
        return f"byte-level {kind}"
    if "Metaspace" in str(backend.pre_tokenizer) or "▁" in str(backend.normalizer):
        return f"Metaspace {kind} (SentencePiece's spaces)"
    return f"{kind}, neither byte-level nor Metaspace"
