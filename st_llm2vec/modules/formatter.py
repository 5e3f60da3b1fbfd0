"""From instruction and text to what the decoder reads, and which of its tokens are pooled."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from st_llm2vec.recipe.template import Template, parse_templates

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

    Raises:
        ValueError: If a template is malformed.

    Example:
        >>> formatter = InstructionFormatter("{text}", "Instruct: {instruction}\\nQuery: {pool}{text}{/pool}")
        >>> formatter.bare_instruction("Instruct: Find the capital.\\nQuery: ")
        'Find the capital.'
    """

    def __init__(self, template: str, instruction_template: str | None = None) -> None:
        self.template_string, self.instruction_template_string = template, instruction_template
        self.template, self.instruction_template = parse_templates(template, instruction_template)

    def get_config_dict(self) -> dict[str, Any]:
        """The templates, as the constructor takes them."""
        return {"template": self.template_string, "instruction_template": self.instruction_template_string}

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
            ``input_ids``, ``attention_mask`` and ``pooling_mask``, each of shape ``(batch, tokens)``.

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
        rows = self._tokenize(self._behind_blanks(texts, instructions), instructions, tokenizer, max_length)
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
            bodies = [body for body, _, _ in rendered]
            encoded = tokenizer(
                bodies,
                add_special_tokens=False,
                return_offsets_mapping=True,
                return_attention_mask=False,
                verbose=False,
            )
            too_long = []
            tokens = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
            for index, template, (ids, offsets), (_, pool, copies) in zip(
                pending, templates, tokens, rendered, strict=True
            ):
                excess = len(ids) + len(bos_ids) * template.bos + template.eos - max_length
                if excess <= 0:
                    mask = [int(start < pool[1] and end > pool[0] and end > start) for start, end in offsets]
                    rows[index] = self._add_special(ids, mask, template, bos_ids, tokenizer)
                else:
                    texts[index] = self._cut(texts[index], offsets, copies, excess, max_length)
                    too_long.append(index)
            pending = too_long
        return [row for row in rows if row is not None]

    def _template_for(self, instruction: str) -> Template:
        return self.instruction_template if instruction and self.instruction_template else self.template

    @staticmethod
    def _add_special(
        ids: list[int], mask: list[int], template: Template, bos_ids: list[int], tokenizer: PreTrainedTokenizerBase
    ) -> tuple[list[int], list[int]]:
        ids, mask = list(ids), list(mask)
        if template.bos:
            ids, mask = bos_ids + ids, [int(template.pools_bos)] * len(bos_ids) + mask
        if template.eos:
            if tokenizer.eos_token_id is None:
                raise ValueError("The template asks for {eos}, but the tokenizer has no end-of-text token; set one.")
            ids, mask = [*ids, tokenizer.eos_token_id], [*mask, int(template.pools_eos)]
        return ids, mask

    @staticmethod
    def _cut(
        text: str, offsets: list[tuple[int, int]], copies: list[tuple[int, int]], excess: int, max_length: int
    ) -> str:
        """Shorten the text so that each copy loses its share of the excess tokens, at least one character."""
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


def leading_special_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids that the tokenizer itself puts before a text (usually BOS or nothing)."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    special = tokenizer("a")["input_ids"]
    for start in range(len(special) - len(plain) + 1):
        if special[start : start + len(plain)] == plain:
            return list(special[:start])
    return []


def pad_rows(rows: list[tuple[list[int], list[int]]], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Pad ``(ids, pooling mask)`` rows at the tokenizer's padding side.

    A row without any token becomes one padding token that is attended to but not pooled, so that the model
    has something to read and the text's vector is zero.
    """
    rows = [row if row[0] else ([tokenizer.pad_token_id], [0]) for row in rows]
    input_ids, attention_mask = pad_ids([ids for ids, _ in rows], tokenizer)
    pooling_mask = torch.zeros_like(attention_mask)
    pooling_mask[attention_mask.bool()] = _flat([mask for _, mask in rows])
    return {"input_ids": input_ids, "attention_mask": attention_mask, "pooling_mask": pooling_mask}


def pad_ids(rows: Sequence[Sequence[int]], tokenizer: PreTrainedTokenizerBase) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad rows of token ids at the tokenizer's padding side.

    Args:
        rows: The ids of each text.
        tokenizer: Its padding token and its padding side are used.

    Returns:
        ``input_ids`` and ``attention_mask``, both of shape ``(batch, tokens)``.
    """
    lengths = torch.tensor([len(row) for row in rows]).unsqueeze(1)
    width = int(lengths.max())
    places = torch.arange(width)
    read = places >= width - lengths if tokenizer.padding_side == "left" else places < lengths
    input_ids = torch.full(read.shape, cast("int", tokenizer.pad_token_id), dtype=torch.long)
    input_ids[read] = _flat(rows)
    return input_ids, read.long()


def _flat(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    return torch.from_numpy(np.fromiter(itertools.chain.from_iterable(rows), np.int64))
