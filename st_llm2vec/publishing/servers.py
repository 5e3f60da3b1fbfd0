"""What servers make of an encoder, on its model card and before it is published."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from st_llm2vec.serving.verdicts import Verdict

logger = logging.getLogger(__name__)


def in_servers(verdicts: Sequence[Verdict], name: str, *, prompted: bool, instructed: bool) -> str:
    """The model card's section: each server, whether it gives these vectors, why, and how it is started.

    Args:
        verdicts: One for each server.
        name: The encoder's name, for the command that serves it whole.
        prompted: Whether the encoder has prompts.
        instructed: Whether it was trained with an instruction that it does not keep.
    """
    spoken = (
        ", with its saved prompts" if prompted else ", but does not put the instruction before a query" * instructed
    )
    told = (
        f"`st-llm2vec serve {name}` (`pip install \"st-llm2vec[serve]\"`) gives the encoder's vectors to OpenAI's clients{spoken}. "
        "Other servers embed the string that they are sent"
    )
    if (prompted or instructed) and any(one.outcome in ("exact", "needs this command", "unknown") for one in verdicts):
        which = "the prompt" if prompted else "the instruction and a blank"
        told += f" and know no prompts: put {which} before each text that takes one"
    told += ". What each of them gives:"
    lines = ["| server | vectors | why | start it with |", "|---|---|---|---|"]
    for one in verdicts:
        judged = one.reason if one.run else f"{one.reason} Judged by its source; it was not run.".strip()
        lines.append(f"| {one.server} | {one.outcome} | {judged} | {f'`{one.command}`' if one.command else ''} |")
    return told + "\n\n" + "\n".join(lines)


def warn_of_servers(verdicts: Sequence[Verdict], name: str) -> None:
    """Name the servers that would give other vectors, before anyone serves the encoder.

    Args:
        verdicts: One for each server.
        name: The encoder's name, for the command that serves it whole.
    """
    wrong = [one for one in verdicts if one.outcome == "wrong"]
    if wrong:
        logger.warning(
            "These servers would give other vectors, or none:\n%s\nSentence Transformers gives the right ones, and so does "
            "`st-llm2vec serve %s`. Most servers can serve the recipes mean and last-token.",
            "\n".join(f"  {one.server}: {one.reason}" for one in wrong),
            name,
        )
