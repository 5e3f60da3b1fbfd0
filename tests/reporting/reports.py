"""A report without any model, with names that are markup."""

from __future__ import annotations

from typing import Any

from st_llm2vec.evaluation.task_data import Labelled
from st_llm2vec.evaluation.task_plan import TaskSpec
from st_llm2vec.evaluation.tasks import Task, TaskResult
from st_llm2vec.reporting.embedding_map import mapped_texts
from st_llm2vec.reporting.measure import Inside, ModelReport, Report

MARKUP = "<img src=x onerror=alert(1)> | $x^2$ & 日本"
LABELS = ("</text><script>alert(1)", "$\\frac{1}", "_hidden_")
FUTURE = {"share": 0.75, "interval": [0.5, 0.9], "positive": [0.9, 0.95, 0.99], "negative": [0.8, 0.85, 0.97]}


def result(task: str, score: float) -> TaskResult:
    return TaskResult(task, "clustering", "v_measure", {"v_measure": score, "spread": 1.0}, None, 9, 2.0, 2**30, {})


def mteb(score: float) -> dict[str, Any]:
    rows = [{"main_score": score - 0.1}, {"main_score": score + 0.1}]
    return {"task_name": "Pairs|of MTEB", "scores": {"test": rows}}


def report(models: tuple[str, ...] = (f"org/{MARKUP}", "org/plain")) -> Report:
    texts = [f"text {number}" for number in range(9)]
    task = Task(TaskSpec(MARKUP, "clustering", {"data": "x"}), Labelled(texts, [LABELS[n % 3] for n in range(9)]))
    made = Report([task], [result(MARKUP, 20)], mapped_texts([task]))
    quality = {"anisotropy": [0.1, 0.2, 0.3], "scores": [10.0, 30.0, 20.0], "best": 1}
    analysis = {
        "future": {"causal": FUTURE, "bidirectional": FUTURE},
        "quality": {"causal": quality, "bidirectional": quality},
        "similarity": [1.0, 0.8, 0.6],
        "above_chance": [1.0, 0.7, 0.4],
        "refusals": {},
    }
    for place, source in enumerate(models):
        places = [(float(number), float(number % 3)) for number in range(9)]
        made.models.append(
            ModelReport(source, {"recipe": MARKUP}, [result(MARKUP, 30 + place)], places, [mteb(0.5 + place / 10)])
        )
        states = [[1.0, 1.0], [0.9, 0.7], [0.5, 0.4]]
        made.insides[source] = Inside(analysis, ["<b>", "$"], states) if place == 0 else Inside(refusal="no layers <i>")
    return made
