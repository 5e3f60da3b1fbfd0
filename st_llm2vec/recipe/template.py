"""Templates: literal text with slots for the text, the instruction, special tokens, and what is pooled."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

SLOT = re.compile(r"(\{/?[a-z_]+\})")
Span = tuple[int, int]
NO_SLOT = "\ufdd3"  # behind a brace that opens no slot; a noncharacter, which no text should hold
READINGS = ("forward", "backward")
SLOTS = ("{bos}", "{eos}", "{instruction}", "{text}", "{pool}", "{/pool}")


@dataclass(frozen=True)
class Template:
    """A parsed template.

    Args:
        pieces: The template in order; each piece is a slot name such as ``"{text}"`` or a literal string.
        bos: Whether the text opens with the tokens that the tokenizer itself puts before a text.
        eos: Whether the text closes with the end-of-text token.
        pools_bos: Whether the opening tokens are pooled.
        pools_eos: Whether the end-of-text token is pooled.
    """

    pieces: tuple[str, ...]
    bos: bool
    eos: bool
    pools_bos: bool
    pools_eos: bool

    @classmethod
    def parse(cls, template: str) -> Template:
        """Parse a template string.

        Args:
            template: Literal text with the slots ``{text}`` (at least once), ``{instruction}``, ``{bos}`` (first),
                ``{eos}`` (last), and ``{pool}`` ... ``{/pool}`` around what is pooled. Without ``{pool}``
                everything is pooled, special tokens included.

        Returns:
            The parsed template.

        Raises:
            ValueError: If a slot is unknown, misplaced, or missing.
        """
        pieces = [piece for piece in SLOT.split(template) if piece]
        unknown = [piece for piece in pieces if SLOT.fullmatch(piece) and piece not in SLOTS]
        if unknown:
            raise ValueError(
                f"The template {template!r} has the unknown slot {unknown[0]}; known are {', '.join(SLOTS)}."
            )
        if "{text}" not in pieces:
            raise ValueError(f"The template {template!r} has no {{text}} slot; write {{text}} where the text belongs.")
        if pieces.count("{pool}") > 1 or pieces.count("{pool}") != pieces.count("{/pool}"):
            raise ValueError(f"The template {template!r} must mark what is pooled with one {{pool}} and one {{/pool}}.")
        pooled = "{pool}" in pieces
        if pooled and pieces.index("{pool}") > pieces.index("{/pool}"):
            raise ValueError(f"The template {template!r} closes {{/pool}} before it opens {{pool}}.")
        content = [piece for piece in pieces if piece not in ("{pool}", "{/pool}")]
        if content.count("{bos}") > 1 or ("{bos}" in content and content[0] != "{bos}"):
            raise ValueError(f"The template {template!r} may have {{bos}} only once, at its very start.")
        if content.count("{eos}") > 1 or ("{eos}" in content and content[-1] != "{eos}"):
            raise ValueError(f"The template {template!r} may have {{eos}} only once, at its very end.")
        bos, eos = "{bos}" in content, "{eos}" in content
        return cls(
            pieces=tuple(
                words for piece in pieces if piece not in ("{bos}", "{eos}") for words in piece.split(NO_SLOT) if words
            ),
            bos=bos,
            eos=eos,
            pools_bos=bos and (not pooled or pieces.index("{pool}") < pieces.index("{bos}")),
            pools_eos=eos and (not pooled or pieces.index("{/pool}") > pieces.index("{eos}")),
        )

    @property
    def copies(self) -> int:
        """How often the text stands in the template."""
        return self.pieces.count("{text}")

    def words(self) -> str:
        """The template without what marks BOS, EOS and the pooled span."""
        return "".join(piece for piece in self.pieces if piece not in ("{pool}", "{/pool}"))

    @property
    def pools_everything(self) -> bool:
        """Whether no span is marked."""
        return "{pool}" not in self.pieces

    def around_instruction(self) -> tuple[str, str]:
        """The literals before and after the ``{instruction}`` slot, up to the next slot or the edge."""
        content = [piece for piece in self.pieces if piece not in ("{pool}", "{/pool}")]
        index = content.index("{instruction}")
        before = content[index - 1] if index > 0 and content[index - 1] not in SLOTS else ""
        after = content[index + 1] if index + 1 < len(content) and content[index + 1] not in SLOTS else ""
        return before, after

    @property
    def separates_by_a_blank(self) -> bool:
        """Whether nothing but a blank stands between the instruction and the text."""
        return "{instruction} {text}" in self.words()

    @property
    def joins_the_instruction(self) -> bool:
        """Whether the text follows the instruction at once, so that the blank between them is the instruction's."""
        return "{instruction}{text}" in self.words()

    def render(self, text: str, instruction: str) -> tuple[str, Span, list[Span], list[Span]]:
        """Fill in the slots.

        Returns:
            The string, the pooled characters ``(start, end)``, and the ``(start, end)`` of each copy of the text and of the
            template's own words.
        """
        body, start, end = "", 0, None
        copies: list[Span] = []
        words: list[Span] = []
        for piece in self.pieces:
            if piece == "{pool}":
                start = len(body)
            elif piece == "{/pool}":
                end = len(body)
            elif piece == "{text}":
                copies.append((len(body), len(body) + len(text)))
                body += text
            elif piece == "{instruction}":
                body += instruction
            else:
                words.append((len(body), len(body) + len(piece)))
                body += piece
        return body, (start, len(body) if end is None else end), copies, words


def as_words(text: str) -> str:
    """A text for a template in which it is to stand as it is, braces and all.

    Args:
        text: The text.

    Example:
        >>> Template.parse(as_words("def {text}") + ": {text}").render("a cat", "")[0]
        'def {text}: a cat'
    """
    return SLOT.sub(lambda slot: f"{{{NO_SLOT}{slot[0][1:]}", text)


def parse_readings(readings: Sequence[str]) -> tuple[str, ...]:
    """How each text is read, checked.

    Args:
        readings: One or more of :data:`READINGS`, each once.

    Raises:
        ValueError: If they are not.
    """
    if not readings or len(set(readings)) < len(readings) or set(readings) - set(READINGS):
        raise ValueError(f"readings={readings!r} must name one or more of {', '.join(READINGS)}, each once.")
    return tuple(readings)


def parse_templates(template: str, instruction_template: str | None) -> tuple[Template, Template | None]:
    """Parse the two templates of an encoder.

    Args:
        template: Of a bare text, see :meth:`Template.parse`.
        instruction_template: Of a text with an instruction; ``None`` if the method takes none.

    Returns:
        The parsed templates.

    Raises:
        ValueError: If one is malformed, the first has an ``{instruction}`` slot, or the second has not exactly one.
    """
    plain = Template.parse(template)
    if "{instruction}" in plain.pieces:
        raise ValueError(f"The template {template!r} is for bare texts and cannot have an {{instruction}} slot.")
    if instruction_template is None:
        return plain, None
    instructed = Template.parse(instruction_template)
    if instructed.pieces.count("{instruction}") != 1:
        raise ValueError(f"The template {instruction_template!r} needs exactly one {{instruction}} slot.")
    return plain, instructed
