"""The kinds of tasks that data comes from: what their rows look like, and what follows for training."""

from __future__ import annotations

from dataclasses import dataclass

PAIRS = ("query", "positive")
SCORED = ("sentence1", "sentence2", "score")
LABELLED = ("sentence1", "sentence2", "label")
INFERENCES = ("premise", "hypothesis", "label")
CLASSES = ("text", "label")
TEXTS = ("text",)
COLLECTION = ("corpus", "queries", "qrels")

Shape = tuple[str, ...]


@dataclass(frozen=True)
class TaskType:
    """What a source of a task is, unless it says otherwise.

    Args:
        symmetric: Whether both sides are instructed.
        in_batch_negatives: Whether other rows' documents are negatives: right where a row has one answer, wrong where other
            rows are of the same class (NV-Embed, arXiv 2405.17428, section 3.3).
        shapes: The columns that its rows may have, by role; the first that is there is read.
        min_score: The smallest score, or the label, of a pair that is a positive.
    """

    symmetric: bool
    in_batch_negatives: bool
    shapes: tuple[Shape, ...]
    min_score: float = 1


TASKS = {
    "retrieval": TaskType(False, True, (PAIRS,)),
    # Pairs of a score of 4 and more, in both directions (NV-Embed, section 4.2).
    "sts": TaskType(True, False, (PAIRS, SCORED), min_score=4),
    "classification": TaskType(True, False, (PAIRS, CLASSES)),
    "clustering": TaskType(True, False, (PAIRS, CLASSES)),
    "pair-classification": TaskType(True, False, (PAIRS, LABELLED)),
    "duplicates": TaskType(True, True, (PAIRS, LABELLED, CLASSES)),
    "bitext": TaskType(True, True, (PAIRS,)),
    "nli": TaskType(False, True, (PAIRS, INFERENCES)),
    "texts": TaskType(True, True, (TEXTS,)),
}
"""The task types, by name."""
