"""From instruction and text to what the decoder reads, and which of its tokens are pooled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from st_llm2vec.modules.padding import pad_rows
from st_llm2vec.modules.pooled_span import add_special_tokens, pooled_tokens
from st_llm2vec.modules.readings import read_in_turn
from st_llm2vec.modules.special_tokens import OwnTokens, leading_special_ids, special_tokens_in, split_at_special_tokens
from st_llm2vec.modules.truncation import cut_text
from st_llm2vec.recipe.template import Span, Template, parse_readings, parse_templates

UNLIMITED = 1_000_000


class InstructionFormatter:
    """Turns instruction and text into token ids and the mask of the tokens to pool, exact to the token.

    The whole string is tokenised at once, as the methods' own code does; a token is pooled when one of its
    characters lies between ``{pool}`` and ``{/pool}``. A row that is too long loses the end of its *text*,
    in every copy alike, before the string is built: template, suffix and end-of-text token always stay.

    Where nothing but a blank separates instruction and text, blanks that the text begins with are left out: to those
    who get the string in one piece, ``"Find it: " + "a text"`` and ``"Find it:" + " a text"`` are the same. Where the text
    follows the instruction at once, ``{instruction}{text}``, the instruction ends in one blank and the text stays as it is:
    what those get who put a saved prompt before a text.

    Args:
        template: Template of a bare text, see :meth:`Template.parse`.
        instruction_template: Template of a text with an instruction; ``None`` if the method takes none.
        split_special_tokens: Whether the tokenizer's special tokens are text in texts and instructions. In the template's own
            words they are control tokens.
        readings: How each text is read: ``"forward"``, ``"backward"``, or one after the other, which gives a row for each.

    Raises:
        ValueError: If a template is malformed, or a reading unknown.

    Example:
        >>> formatter = InstructionFormatter("{text}", "Instruct: {instruction}\\nQuery: {pool}{text}{/pool}")
        >>> formatter.bare_instruction("Instruct: Find the capital.\\nQuery: ")
        'Find the capital.'
    """

    def __init__(
        self,
        template: str,
        instruction_template: str | None = None,
        split_special_tokens: bool = True,
        readings: Sequence[str] = ("forward",),
    ) -> None:
        self.template_string, self.instruction_template_string = template, instruction_template
        self.template, self.instruction_template = parse_templates(template, instruction_template)
        self.split_special_tokens = split_special_tokens
        self.readings = parse_readings(readings)
        self._own: tuple[Any, OwnTokens | None] = (None, None)

    def bare_instruction(self, instruction: str | None) -> str:
        """Strip blanks, and the template's words where the whole instruction stands between them, as a caller wraps it.

        An instruction may begin or end with a word of the template's by itself, and keeps it; where the template has words
        on one side only, nothing tells the two, and all are the instruction's. One that the text follows at once gets a
        blank at its end.
        """
        instruction = (instruction or "").strip()
        if self.instruction_template is not None and self.instruction_template.joins_the_instruction:
            return f"{instruction} " if instruction else ""
        before, after = self.wrapping()
        if instruction.startswith(before) and instruction.endswith(after) and len(instruction) >= len(before + after):
            instruction = instruction[len(before) : len(instruction) - len(after)].strip()
        return instruction

    def wrapping(self) -> tuple[str, str]:
        """What stands before and after an instruction that a caller has wrapped, blanks at its ends stripped.

        Both are empty unless the template has words on both sides: words on one may be the instruction's own.
        """
        if self.instruction_template is None:
            return "", ""
        before, after = self.instruction_template.around_instruction()
        return (before.lstrip(), after.rstrip()) if before.strip() and after.strip() else ("", "")

    def __call__(
        self,
        texts: Sequence[str],
        instruction: str | Sequence[str | None] | None,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int,
    ) -> dict[str, torch.Tensor]:
        """Format and tokenise a batch.

        Args:
            texts: The texts.
            instruction: One instruction for all texts, or one for each of them; empty or ``None`` for none.
            tokenizer: A fast tokenizer with a padding token; its ``padding_side`` is used.
            max_length: Longest row, in tokens, template included.

        Returns:
            ``input_ids``, ``attention_mask`` and ``pooling_mask``, each of shape ``(batch, tokens)``; a text's readings
            are rows beside each other.

        Raises:
            ValueError: If the method takes no instruction, if the numbers of texts and instructions differ,
                or if the template alone is longer than ``max_length``.
        """
        if instruction is None or isinstance(instruction, str):
            instructions: list[str] = [self.bare_instruction(instruction)] * len(texts)
        else:
            instructions = [self.bare_instruction(one) for one in instruction]
        if len(instructions) != len(texts):
            raise ValueError(f"Got {len(texts)} texts but {len(instructions)} instructions; give one for each text.")
        if any(instructions) and self.instruction_template is None:
            raise ValueError(
                f"This encoder's template {self.template_string!r} has no place for an instruction, "
                f"but one was given: {next(filter(None, instructions))!r}. Encode without a prompt."
            )
        instructions = [one for one in instructions for _ in self.readings]
        read = self._behind_blanks(read_in_turn(texts, self.readings), instructions)
        rows = self._tokenize(read, instructions, tokenizer, max_length)
        return pad_rows(rows, tokenizer)

    def _behind_blanks(self, texts: Sequence[str], instructions: list[str]) -> list[str]:
        if self.instruction_template is None or not self.instruction_template.separates_by_a_blank:
            return list(texts)
        return [text.lstrip(" ") if told else text for text, told in zip(texts, instructions, strict=True)]

    def _tokenize(
        self, texts: list[str], instructions: list[str], tokenizer: PreTrainedTokenizerBase, max_length: int
    ) -> list[tuple[list[int], list[int]]]:
        bos_ids = leading_special_ids(tokenizer)
        rows: list[tuple[list[int], list[int]] | None] = [None] * len(texts)
        pending = list(range(len(texts)))
        while pending:
            templates = [self._template_for(instructions[i]) for i in pending]
            rendered = [t.render(texts[i], instructions[i]) for t, i in zip(templates, pending, strict=True)]
            tokens = self._encode([(body, words) for body, _, _, words in rendered], tokenizer)
            too_long = []
            for index, template, (ids, offsets), (_, pool, copies, _) in zip(
                pending, templates, tokens, rendered, strict=True
            ):
                excess = len(ids) + len(bos_ids) * template.bos + template.eos - max_length
                if excess <= 0:
                    mask = pooled_tokens(offsets, pool)
                    rows[index] = add_special_tokens(ids, mask, template, bos_ids, tokenizer)
                else:
                    texts[index] = cut_text(texts[index], offsets, copies, excess, max_length)
                    too_long.append(index)
            pending = too_long
        return [row for row in rows if row is not None]

    def _encode(
        self, strings: list[tuple[str, list[Span]]], tokenizer: PreTrainedTokenizerBase
    ) -> list[tuple[list[int], list[Span]]]:
        """The ids and the characters of each string's tokens; special tokens are such in the template's own words."""
        own = self._own_tokens(tokenizer)
        parts = [split_at_special_tokens(body, words, own) for body, words in strings]
        encoded = tokenizer(
            [body[start:end] for (body, _), cut in zip(strings, parts, strict=True) for start, end, _ in cut],
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
            split_special_tokens=self.split_special_tokens,
        )
        found = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
        if own is None:
            return list(found)
        rows = []
        for cut in parts:
            ids: list[int] = []
            offsets: list[Span] = []
            for (start, end, special), (part_ids, part_offsets) in zip(cut, found):  # noqa: B905, others' follow
                ids += part_ids if special is None else [special]
                offsets += [(start + s, start + e) for s, e in part_offsets] if special is None else [(start, end)]
            rows.append((ids, offsets))
        return rows

    def _own_tokens(self, tokenizer: PreTrainedTokenizerBase) -> OwnTokens | None:
        """The special tokens that the templates' own words hold, where those of texts are none."""
        known, own = self._own
        if known is not tokenizer:
            own = special_tokens_in(f"{self.template_string}\n{self.instruction_template_string}", tokenizer)
            self._own = tokenizer, own
        return own if self.split_special_tokens else None

    def _template_for(self, instruction: str) -> Template:
        return self.instruction_template if instruction and self.instruction_template else self.template
