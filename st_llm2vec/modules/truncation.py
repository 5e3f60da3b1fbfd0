"""What of an input that is too long is cut: the text, at its end, and never the template around it."""

from __future__ import annotations

from st_llm2vec.recipe.template import Span


def cut_text(text: str, offsets: list[Span], copies: list[Span], excess: int, max_length: int) -> str:
    """Shorten a text so that each of its copies in the template loses its share of the excess, at least one character.

    Args:
        text: The text.
        offsets: The characters of each token of the whole input.
        copies: Where the text's copies stand in it, by character; Echo has two.
        excess: How many tokens the input has too many.
        max_length: Longest input in tokens, for the message.

    Returns:
        The beginning of the text.

    Raises:
        ValueError: If no text would be left.

    Example:
        >>> cut_text("a red fox", [(0, 3), (3, 4), (4, 8), (8, 12)], copies=[(3, 12)], excess=1, max_length=3)
        'a red'
    """
    start, end = copies[0]
    inside = [s for s, e in offsets if e > start and s < end and e > s]
    keep = len(inside) - -(-excess // len(copies))
    cut = inside[keep] - start if 0 < keep < len(inside) else 0
    if cut <= 0:
        raise ValueError(
            f"The template and the instruction leave no room for the text: max_length={max_length} tokens are "
            f"{excess} too few for the whole. Shorten the instruction or the demonstrations, or raise max_length."
        )
    return text[: min(cut, len(text) - 1)]
