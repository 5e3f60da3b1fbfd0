"""What servers make of an encoder, on its model card and before it is published."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from st_llm2vec.serving.verdicts import Verdict

logger = logging.getLogger(__name__)


def in_servers(verdicts: Sequence[Verdict]) -> str:
    """The model card's section: each server, whether it gives these vectors, and how it is started.

    Args:
        verdicts: One for each server.
    """
    lines = ["| server | vectors |", "|---|---|"]
    for one in verdicts:
        parts = [one.outcome, one.reason, f"`{one.command}`" if one.command else "", "" if one.run else "not run"]
        lines.append(f"| {one.server} | {'; '.join(filter(None, parts))} |")
    told = "Whether a server gives these vectors. It embeds the string that it is given: put the prompt before a query."
    return told + "\n\n" + "\n".join(lines)


def warn_of_servers(verdicts: Sequence[Verdict]) -> None:
    """Name the servers that would give other vectors, before anyone serves the encoder.

    Args:
        verdicts: One for each server.
    """
    wrong = [one for one in verdicts if one.outcome == "wrong"]
    if wrong:
        logger.warning(
            "These servers would give other vectors, or none:\n%s\nSentence Transformers gives the right ones. "
            "`st-llm2vec inspect` tells of each server; most can serve the recipes mean and last-token.",
            "\n".join(f"  {one.server}: {one.reason}." for one in wrong),
        )
