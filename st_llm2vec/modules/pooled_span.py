"""Which tokens of a text are pooled: those of the template's marked span, to the character."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from st_llm2vec.recipe.template import Span, Template


def pooled_tokens(offsets: list[Span], span: Span) -> list[int]:
    """A one for each token that has a character of the span, a zero for each other.

    Args:
        offsets: The characters of each token.
        span: The characters that are pooled.

    Example:
        >>> pooled_tokens([(0, 4), (4, 9), (9, 9), (9, 12)], span=(2, 9))
        [1, 1, 0, 0]
    """
    first, last = span
    return [int(start < last and end > first and end > start) for start, end in offsets]


def add_special_tokens(
    ids: list[int], mask: list[int], template: Template, bos_ids: list[int], tokenizer: PreTrainedTokenizerBase
) -> tuple[list[int], list[int]]:
    """Put BOS and EOS around a text where its template asks for them, pooled where it says so.

    Args:
        ids: The text's token ids.
        mask: A one for each token that is pooled.
        template: The text's template.
        bos_ids: What the tokenizer puts before a text.
        tokenizer: Its end-of-text token is used.

    Returns:
        The ids and the mask, with those of BOS and EOS.

    Raises:
        ValueError: If the tokenizer has no end-of-text token and the template asks for one.
    """
    ids, mask = list(ids), list(mask)
    if template.bos:
        ids, mask = bos_ids + ids, [int(template.pools_bos)] * len(bos_ids) + mask
    if template.eos:
        if tokenizer.eos_token_id is None:
            raise ValueError("The template asks for {eos}, but the tokenizer has no end-of-text token; set one.")
        ids, mask = [*ids, tokenizer.eos_token_id], [*mask, int(template.pools_eos)]
    return ids, mask
