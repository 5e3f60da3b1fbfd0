"""What the command line shows: its two streams, its tables, and its silence."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from st_llm2vec.folder.encoder import TextEncoder
    from st_llm2vec.inspection import EncoderInspection, Inspection, Readiness

output = Console(highlight=False)
messages = Console(stderr=True, highlight=False)

LAYOUTS = {
    "prefix": ("portable", "green"),
    "text": ("portable", "green"),
    "message": ("portable", "green"),
    "custom": ("custom", "yellow"),
    "impossible": ("impossible", "red"),
}


def quiet() -> None:
    """Silence the libraries' own reports and the bars of their loading and saving; downloads keep theirs.

    Where nobody watches, the bars of ``datasets`` are silenced too, which a file would hold redrawn, one after the other.
    """
    import datasets
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.utils.logging.set_verbosity(logging.CRITICAL)  # it logs the errors that it raises
    if not messages.is_terminal:
        datasets.disable_progress_bars()
    logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
    own = logging.getLogger("st_llm2vec")
    if not any(isinstance(handler, _Warnings) for handler in own.handlers):
        own.addHandler(_Warnings(logging.WARNING))


class _Warnings(logging.Handler):
    """Shows the package's own warnings as sentences on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        messages.print(Text(record.getMessage(), style="yellow"), soft_wrap=True)


def say(text: str) -> None:
    """A calm line on stderr about what is being done."""
    messages.print(Text(text, style="dim"), soft_wrap=True)


def fail(text: str) -> None:
    """An error, in a sentence."""
    messages.print(Text(text, style="red"), soft_wrap=True)


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Any]:
    """A bar on stderr, where that is a terminal; yields a function that advances it."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=messages, transient=True, disable=not messages.is_terminal) as progress:
        task = progress.add_task(label, total=total)
        yield lambda rows: progress.advance(task, rows)


def facts(rows: dict[str, RenderableType]) -> Table:
    """Names on the left, values on the right."""
    table = Table.grid(padding=(0, 3))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(value) if isinstance(value, str) else value)
    return table


def shorten(text: str, width: int) -> str:
    """A text on one line of at most ``width`` characters."""
    text = " ".join(text.split())
    return text if len(text) <= width else f"{text[: max(width, 1) - 1].rstrip()}…"


def plain_table(*headers: str) -> Table:
    """A table with one line below its header."""
    return Table(*headers, box=SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)


def encoder_view(encoder: TextEncoder, folder: str) -> RenderableType:
    """What ``convert`` made."""
    manifest = encoder.manifest
    assert manifest is not None
    config = manifest.config
    portable = manifest.layout != "custom"
    way = f'SentenceTransformer("{folder}")' if portable else f'st_llm2vec.load("{folder}")'
    rows: dict[str, RenderableType] = {
        "encoder": folder,
        "recipe": f"{config.name}  {config.paper}".strip(),
        "made from": describe_base(manifest.base),
        "attention": str(describe_probe(manifest.attention)),
        "vectors": f"{encoder.get_embedding_dimension()} dimensions, {config.pooling.replace('_', ' ')} pooling"
        + (", length one" if config.normalize else ""),
        "longest text": f"{encoder.max_seq_length} tokens",
        "modules": Text.assemble(LAYOUTS[manifest.layout], f": {manifest.reason}"),
    }
    for name, prompt in config.prompts.items():
        rows[f"prompt {name}"] = prompt or "(none)"
    rows["load it with"] = way
    return facts(rows)


def describe_base(base: dict[str, Any]) -> str:
    """The decoder that an encoder was made from, in words."""
    gguf = base.get("gguf")
    name = str(base.get("name") or "an unnamed decoder")
    return f"{name}, {dequantised(gguf)}" if gguf else name


def dequantised(gguf: dict[str, str]) -> str:
    """What a GGUF file's weights were, in words."""
    return f"weights dequantised from {gguf['file']} ({gguf['quantization']})"


def describe_probe(data: dict[str, Any]) -> str:
    """An attention probe that was written down, in words."""
    from st_llm2vec.modules.attention import AttentionProbe

    return AttentionProbe.from_dict(data).describe()


def inspection_view(found: Inspection) -> RenderableType:
    """What ``inspect`` found."""
    tokenizer = found.tokenizer
    possible = "\n".join(probe.describe() for probe in found.bidirectional) or found.refusal
    if found.needs_repair:
        possible += "\nonly with a repair at every load, which stock modules do not do"
    special = [f"adds {tokenizer.bos} before a text" if tokenizer.bos else "adds nothing before a text"]
    special.append(f"end {tokenizer.eos}" if tokenizer.eos else "no end-of-text token")
    special.append(f"padding {tokenizer.pad}" if tokenizer.pad else "no padding token")
    special.append("chat template" if tokenizer.chat_template else "no chat template")
    padding = "does no harm"
    if found.left_padding_changes:
        cause = "shifts its positions unless they are given" if found.position_ids else "is read by its layers"
        padding = f"{cause}, so texts are padded on the right"
    model = facts(
        {
            "model": found.name,
            "architecture": f"{found.architecture} ({found.model_type})",
            "size": f"{found.parameters:,} parameters, {found.layers} layers of width {found.width}, {found.dtype}"
            + (f"\n{dequantised(found.source)}" if found.source else ""),
            "vocabulary": f"{found.vocabulary:,} tokens",
            "context": f"{found.context:,} tokens" if found.context else "no limit",
            "tokenizer": f"{tokenizer.family}\n{'; '.join(special)}",
            "attention": found.attention,
            "told to be bidirectional": possible,
            "left padding": padding,
        }
    )
    table = plain_table("recipe", "modules", "untrained", "why")
    table.columns[2].justify = "right"
    for one in found.recipes:
        word, style = LAYOUTS[one.layout]
        name = Text(one.recipe, style="bold" if one.recipe in (found.recommended, found.untrained) else "")
        score = "" if one.score is None else f"{one.score:.0f}"
        table.add_row(name, Text(word, style=style), score, Text(one.reason.replace("; ", "\n"), style="dim"))
    stages = ", then ".join(found.stages)
    advice = facts(
        {
            "without training": Text.assemble("Take ", (found.untrained, "bold"), ". ", found.untrained_advice),
            "for training": Text.assemble("Begin with ", (found.recommended, "bold"), ". ", found.advice),
            "stages": Text.assemble("Train ", (stages, "bold"), ". ", found.stages_advice),
        }
    )
    freed = [Padding(_readiness_view(found.readiness), (0, 0, 1, 0))] if found.readiness is not None else []
    return Group(model, Padding(table, (1, 0)), *freed, advice)


def _readiness_view(found: Readiness) -> RenderableType:
    """What bidirectional attention does to a decoder, beside the two that it is known of."""
    from st_llm2vec.inspection.readiness import KNOWN

    low, high = found.interval
    known = "; ".join(f"{name}: {same:.2f} and {above:.2f}" for name, (same, above, _) in KNOWN.items())
    ranked = " and ".join(f"{share:.0%}" for _, _, share in KNOWN.values())
    return facts(
        {
            "attention freed": f"score {found.causal:.0f} causal, {found.bidirectional:.0f} bidirectional (the best layer, "
            f"{found.best_layer}: {found.best:.0f})",
            "same states": f"{found.same_state:.2f} in the mean over layers, {fmean(found.above_chance[1:]):.2f} above chance ({known})",
            "future tokens": f"{found.ranked_right:.0%} of triples ranked right, {low:.0%} to {high:.0%} with 95 % confidence "
            f"(which does not tell these two decoders apart: {ranked})",
        }
    )


def encoder_inspection_view(found: EncoderInspection) -> RenderableType:
    """What ``inspect`` found of an encoder."""
    rows: dict[str, RenderableType] = {
        "encoder": found.name,
        "recipe": f"{found.recipe}  {found.paper}".strip() or "unknown: there is no st_llm2vec.json",
    }
    if found.base:
        rows["made from"] = describe_base(found.base)
    if found.recipe:
        rows["trained"] = ", then ".join(str(stage.get("name")) for stage in found.stages) or "no"
    rows |= {
        "attention": found.attention,
        "vectors": f"{found.dimension} dimensions",
        "longest text": f"{found.longest} tokens",
        "size": f"{found.parameters:,} parameters, {found.dtype}",
        "modules": ", ".join(found.modules),
    }
    if found.layout:
        rows["layout"] = Text.assemble(LAYOUTS[found.layout], f": {found.reason}")
    for name, prompt in found.prompts.items():
        rows[f"prompt {name}"] = prompt + (" (the default)" if name == found.default_prompt else "")
    rows["in st-llm2vec serve"] = f"exact\nst-llm2vec serve {found.name}"
    for one in found.servers:
        said = f"{one.outcome}: {one.reason}" if one.reason else one.outcome
        by = "" if one.run else " (judged by its source; it was not run)"
        rows[f"in {one.server}"] = Text(f"{said}{by}" + (f"\n{one.command}" if one.command else ""))
    return facts(rows)


def recipes_view() -> RenderableType:
    """The named recipes."""
    from st_llm2vec.recipe.config import RECIPES

    def line(name: str, attention: str, pooling: str, paper: str, style: str) -> Text:
        row = Text.assemble((f"{name:<20}", style), f"{attention:<14}{pooling:<17}", paper)
        row.no_wrap, row.overflow = True, "ellipsis"
        return row

    blocks: list[RenderableType] = [Text.assemble((line("recipe", "attention", "pooling", "paper", "").plain, "bold"))]
    for recipe in RECIPES.values():
        blocks.append(line(recipe.name, recipe.attention, recipe.pooling.replace("_", " "), recipe.paper, "cyan"))
        templates = [
            one.replace("\n", "\\n") for one in (recipe.template, recipe.instruction_template) if one is not None
        ]
        blocks.append(Padding(Text("\n".join(templates), style="dim", overflow="fold"), (0, 0, 0, 2), expand=False))
    return Group(*blocks)


def vectors_view(texts: Sequence[str], vectors: Any, total: int) -> RenderableType:
    """The first texts with the beginnings of their vectors."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    units = vectors / np.where(lengths > 0, lengths, 1)
    table = plain_table("", "text", f"vector of {vectors.shape[1]} dimensions", "cosine to the first")
    table.columns[0].style = "dim"
    table.columns[3].justify = "right"
    for row, text in enumerate(texts):
        numbers = " ".join(f"{value:+.3f}" for value in vectors[row][:3])
        shown = Text(shorten(text, max(20, output.width - 62)) or "(empty)", style="" if text.strip() else "dim")
        table.add_row(str(row + 1), shown, f"{numbers} …", f"{float(units[row] @ units[0]):.3f}")
    if total <= len(texts):
        return table
    rest = f"The first {len(texts)} rows of {total:,}; --output FILE writes them all."
    return Group(table, Padding(Text(rest, style="dim"), (1, 0, 0, 0)))
