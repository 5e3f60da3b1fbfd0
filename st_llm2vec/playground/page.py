"""The page, and what it shows of each comparison, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from st_llm2vec import __version__
from st_llm2vec.encoding.text_reader import TextReader
from st_llm2vec.playground.comparison import (
    MOST_PASSAGES,
    Question,
    Similarities,
    by_encoder,
    by_words_alone,
    takes_instruction,
)
from st_llm2vec.playground.models import FIRST, OFFERED, OWN, Models
from st_llm2vec.playground.reading import SHOWN_FIRST, Reading, readings

QUERY = "How do ships find the way at sea?"
PASSAGES = (
    "The dog chased the cat up a tree.",
    "The cat chased the dog up a tree.",
    "A kitten fled from a puppy and climbed an oak.",
    "Bees gather nectar and make honey in the hive.",
    "The baker puts the bread into the oven.",
    "Lightning heats the air, and so we hear the thunder.",
    "The old lighthouse warns ships of the rocks.",
    "Sailors steer by the compass and by the stars.",
)
MOST_COMPARED = 4
NUMBERED = 10
"""Up to so many passages the cells of a heat map have room for numbers."""
WORDS = "words alone"

_templates = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


def page(models: Models) -> str:
    """The page before anything is compared.

    Args:
        models: What can be compared on it.
    """
    return _templates.get_template("page.html.jinja").render(
        models=models,
        recipes=OFFERED,
        chosen=FIRST if models.decoders else (),
        query=QUERY,
        passages="\n".join(PASSAGES),
        most=MOST_COMPARED,
        most_passages=MOST_PASSAGES,
        own=OWN,
        version=__version__,
    )


def answer(models: Models, sent: Mapping[str, Any]) -> dict[str, Any]:
    """What one encoder makes of what was typed, and what its decoder's words alone would.

    Args:
        models: The page's models.
        sent: ``query``, ``passages`` and ``instruction`` as for :meth:`Question.read`, ``model``, and ``recipe`` for a decoder.

    Returns:
        HTML: ``nearest``, ``read`` and ``similar`` of the encoder, and in ``words`` the first and the last of the words, with
        the ``model`` that they are of. Where the encoder refuses, ``nearest`` alone, which says why.

    Raises:
        ValueError: If what was typed cannot be compared by any encoder.
    """
    question = Question.read(sent)
    model, recipe = str(sent.get("model", "")), sent.get("recipe") or None
    several = len(models.decoders) > 1
    title = model if recipe is None else f"{recipe} · {model}" if several else str(recipe)
    try:
        with models.opened(model, recipe) as encoder:
            found, words = by_encoder(encoder, question), by_words_alone(encoder, question)
            read = list(readings(encoder, question))
            notes = _notes(encoder, question, read)
    except ValueError as error:
        return {"nearest": _piece("refused", title=title, reason=str(error))}
    about = f"{WORDS} · {model}" if several or model in models.encoders else WORDS
    return {
        "nearest": _nearest(title, found, question, notes),
        "read": _piece("read", title=title, readings=read, first=SHOWN_FIRST),
        "similar": _similar(title, found),
        "words": {"model": model, "nearest": _nearest(about, words, question), "similar": _similar(about, words)},
    }


def shares(values: np.ndarray) -> np.ndarray:
    """Where each value lies between the lowest and the highest, from 0 to 1; all 1 where they are the same.

    Args:
        values: Similarities; those that are not numbers are left out of both ends.

    Example:
        >>> shares(np.array([0.8, 0.9, 1.0])).round(2).tolist()
        [0.0, 0.5, 1.0]
    """
    low, high = np.nanmin(values), np.nanmax(values)
    return (values - low) / (high - low) if high > low else np.where(np.isnan(values), np.nan, 1.0)


def _notes(encoder: TextReader, question: Question, read: Sequence[Reading]) -> list[str]:
    """What is to know of a comparison beside its numbers."""
    notes = []
    if question.instruction and not takes_instruction(encoder):
        notes.append("This recipe takes no instruction: the query is read without it.")
    manifest = encoder.manifest
    if manifest is not None and len(manifest.config.readings) > 1:
        notes.append(f"Each text is read {' and '.join(manifest.config.readings)}; below is the first.")
    cut = [one for one in read if one.cut]
    if cut:
        names = ", ".join(one.name.lower() for one in cut)
        notes.append(
            f"Cut to {encoder.max_seq_length} tokens: {names}. What does not fit ({sum(one.cut for one in cut):,} tokens in "
            "all) is not read."
        )
    return notes


def _nearest(title: str, found: Similarities, question: Question, notes: Sequence[str] = ()) -> str:
    lengths = shares(found.to_query)
    rows = [(at + 1, question.passages[at], found.to_query[at], lengths[at]) for at in found.order]
    return _piece("nearest", title=title, rows=rows, notes=notes)


def _similar(title: str, found: Similarities) -> str:
    others = np.array(found.passages, dtype=float)
    np.fill_diagonal(others, np.nan)
    heats = shares(others)
    rows = [list(zip(row, heat, strict=True)) for row, heat in zip(others.tolist(), heats.tolist(), strict=True)]
    ends = float(np.nanmin(others)), float(np.nanmax(others))
    return _piece("similar", title=title, rows=rows, ends=ends, numbers=len(rows) <= NUMBERED)


def _piece(name: str, **shown: Any) -> str:
    module: Any = _templates.get_template("pieces.html.jinja").module
    return str(getattr(module, name)(**shown))
