"""What is known not to hold of an encoder, for its model card."""

from __future__ import annotations

from collections.abc import Sequence

from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.modules.special_tokens import leading_special_ids
from st_llm2vec.publishing.check import Check
from st_llm2vec.publishing.stages import DevSet, Stages, trained_length, untaught
from st_llm2vec.serving.verdicts import Verdict


def limitations(
    encoder: TextEncoder,
    check: Check,
    servers: Sequence[Verdict],
    *,
    recorded: bool,
    stages: Stages,
    dev_sets: Sequence[DevSet],
    scored: bool,
) -> list[str]:
    """Say in a sentence each what the records tell of an encoder's limits.

    Args:
        encoder: The encoder, as it is published.
        check: What was checked before.
        servers: What each server makes of it.
        recorded: Whether it has a manifest, which tells how it was made.
        stages: The records of its stages.
        dev_sets: What those were evaluated on.
        scored: Whether the card has a score.

    Returns:
        The sentences.
    """
    longest = encoder.max_seq_length
    found = [f"The end of a text that is longer than {longest} tokens is cut off, without a word."] if longest else []
    if encoder.layout in ("prefix", "text") and not leading_special_ids(encoder.tokenizer):
        found.append(
            "An empty text has no token to read, and Sentence Transformers alone no vector for it: leave it out."
        )
    if recorded and not stages:
        found.append("It is not trained: its vectors are what the decoder gives as it is.")
    trained = trained_length(stages)
    if trained is not None and trained < (longest or trained + 1):
        found.append(f"It was trained on texts of at most {trained} tokens.")
    for role in untaught(stages, encoder.prompts):
        found.append(f"Its saved instruction for a {role} was in none of the pairs that it was trained on.")
    for one in dev_sets:
        if one.chose:
            score = f" ({one.score})" if one.score else ""
            found.append(
                f"`{one.name}` chose the checkpoint of the stage {one.stage}{score}, so a score on it flatters this encoder. "
                "Compare encoders on data that chose none of them."
            )
    if not scored:
        found.append("No score of it is recorded here.")
    found.append("Which languages it reads well was not measured; look at what its base and its training data hold.")
    found.append(
        f"Its weights are in {check.dtype}, and in another type its vectors are others. In this one, a text alone and the same "
        f"in a batch were at most {check.invariance:.0e} apart (cosine distance)."
    )
    wrong = [one.server for one in servers if one.outcome == "wrong"]
    if wrong:
        listed = " and ".join(filter(None, (", ".join(wrong[:-1]), wrong[-1])))
        found.append(f"{listed} would not give its vectors; *In servers* says why.")
    return found
