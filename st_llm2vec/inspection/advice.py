"""Which recipe to take, with and without training, and which stages of training."""

from __future__ import annotations

from collections.abc import Sequence

from st_llm2vec.inspection.readiness import Readiness
from st_llm2vec.inspection.recipes import Outlook
from st_llm2vec.modules.attention import AttentionProbe
from st_llm2vec.recipe.config import RECIPES

UNTRAINED = ("prompteol-icl", "echo", "prompteol")
"""Recipes that are made to be used without training, the best first as far as two real decoders tell."""
SERVED = "Will it be served by vLLM, llama.cpp or the like, train {} instead, which they can give: `inspect` tells of the encoder."


def recommend(bidirectional: tuple[AttentionProbe, ...], refusal: str) -> tuple[str, str]:
    """Choose the recipe to begin training with.

    Args:
        bidirectional: What the attention becomes when made bidirectional.
        refusal: Why no bidirectional recipe can be used; empty if they can.

    Returns:
        The recipe, and why.
    """
    if refusal:
        why = "It cannot be made bidirectional; Echo reads the text twice, so that the second time it has seen it all."
        elsewhere = [probe.implementation for probe in bidirectional if probe.sees_future]
        if elsewhere:
            why += f' With attn_implementation="{elsewhere[0]}" it can be bidirectional.'
        return "echo", f"{why} {SERVED.format('last-token')}"
    if bidirectional[0].kind == "hybrid":
        return "prompteol", (
            "Its recurrent or convolutional layers stay causal whatever is set, so a bidirectional recipe would be so in "
            "part only; a causal recipe takes the model as it is, and this one needs no training. "
            + SERVED.format("last-token")
        )
    why = "Its attention can be made bidirectional, which an encoder that will be trained wants."
    return "llm2vec", f"{why} {SERVED.format('mean')}"


def recommend_untrained(recipes: Sequence[Outlook], trained: str) -> tuple[str, str]:
    """Choose the recipe to take without any training.

    Args:
        recipes: What each recipe would make of the model.
        trained: The recipe to begin training with, to compare with.

    Returns:
        The recipe, and why: by its score where recipes were scored.
    """
    scores = {one.recipe: one.score for one in recipes if one.score is not None}
    if not scores:
        possible = [one.recipe for one in recipes if one.layout != "impossible"]
        best = next((name for name in UNTRAINED if name in possible), possible[0])
        return best, "It is made to be used without training. No recipe was scored on this model; --measure does that."
    best = max(scores, key=lambda name: scores[name])
    why = f"It scores {scores[best]:.0f} of 100 on the built-in sentences, as it is"
    if trained in scores and trained != best:
        return best, f"{why}; {trained} scores {scores[trained]:.0f} before it is trained."
    return best, f"{why}."


def recommend_stages(recipe: str, readiness: Readiness | None) -> tuple[tuple[str, ...], str]:
    """Choose the stages of training, by what was measured.

    Args:
        recipe: The recipe to begin training with.
        readiness: What bidirectional attention does to the model, where that was measured.

    Returns:
        Names of stages in their order, and why. ``supervised`` takes the place of ``simcse`` where there are pairs.
    """
    if RECIPES[recipe].attention == "causal":
        return ("simcse",), "MNTP teaches bidirectional attention, which this recipe does without."
    if readiness is None:
        why = "It is LLM2Vec's order. Whether this model needs MNTP was not measured; --measure does that."
        return ("mntp", "simcse"), why
    fell = f"{readiness.causal:.0f} of 100 under causal attention and {readiness.bidirectional:.0f} under bidirectional"
    if readiness.verdict == "breaks":
        why = f"Freeing its attention breaks it: the mean of its states scores {fell}. MNTP teaches it to use what follows."
        return ("mntp", "simcse"), why
    if readiness.verdict == "poor":
        why = f"The mean of its states tells little either way ({fell}), so what MNTP would mend was not seen. LLM2Vec's order."
        return ("mntp", "simcse"), why
    return ("simcse",), (
        f"It copes with bidirectional attention as it is: the mean of its states scores {fell}. Measure before you spend on "
        "MNTP: on the decoder in the box, which copes too, SimCSE scored 66 on STS-B dev without it and 65 after it."
    )
