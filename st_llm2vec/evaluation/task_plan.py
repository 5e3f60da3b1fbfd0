"""Tasks as a plan says them: which files, which columns, which instruction, which score."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Kind:
    """What a kind of task needs and gives.

    Args:
        files: Its files, by what they are for.
        columns: The columns of their tables.
        metrics: Its scores; the first is the one that is shown, unless a task names another.
    """

    files: tuple[str, ...]
    columns: tuple[str, ...]
    metrics: tuple[str, ...]


KINDS = {
    "sts": Kind(("data",), ("sentence1", "sentence2", "score"), ("spearman", "pearson")),
    "pair-classification": Kind(("data",), ("sentence1", "sentence2", "label"), ("ap", "accuracy", "f1")),
    "classification": Kind(("train", "test"), ("text", "label"), ("accuracy", "macro_f1")),
    "clustering": Kind(("data",), ("text", "label"), ("v_measure", "spread")),
    "retrieval": Kind(("corpus", "queries", "qrels"), ("id", "text", "title"), ("ndcg@10", "mrr@10", "recall@100")),
    "reranking": Kind(("data",), ("query", "positive", "negative"), ("map", "mrr@10")),
    "words": Kind(("train", "test"), ("label",), ("accuracy", "f1", "spread")),
}
PROBES = ("linear", "logistic")
FORMATS = ("table", "smart", "trec")


@dataclass(frozen=True)
class TaskSpec:
    """One task of a plan.

    Args:
        name: What it is called.
        kind: A key of :data:`KINDS`.
        files: Paths by what they are for, as :data:`KINDS` names them.
        columns: What the files call a column, by our name for it; those left out are called as in :data:`KINDS`.
        header: Names for the columns of a ``.csv`` or ``.tsv`` whose first line is data.
        options: How tables are read, as for :func:`~st_llm2vec.data.read_dataset`: ``{"quoting": 3}`` where a quotation mark
            means nothing.
        format: For retrieval: ``table``, ``smart`` or ``trec``.
        encoding: The encoding of ``smart`` and ``trec`` files.
        renumber: Number the queries from 1 in their order, as Cranfield's judgements do.
        smallest_grade: The smallest grade of relevance that counts.
        instruction: What encoders that take instructions are told: for queries in retrieval and reranking, for all texts
            elsewhere; documents and words have none. Without one, an encoder's own are used.
        metric: The score to show.
        limit: Take so many rows of each table, drawn with a fixed seed; so many queries in retrieval,
            the first sentences of words.
        documents: For retrieval, take so many documents: all that are relevant to the queries, then others drawn with a fixed
            seed. Fewer documents are easier to search, so that scores compare with those of the same sample alone.
        probe: For words, ``linear`` (LLM2Vec's) or ``logistic``.
        shift: For words, whether to read each from the states that predict it, as MNTP does.
    """

    name: str
    kind: str
    files: dict[str, str]
    columns: dict[str, str] = field(default_factory=dict)
    header: list[str] | None = None
    options: dict[str, Any] = field(default_factory=dict)
    format: str = "table"
    encoding: str = "utf-8"
    renumber: bool = False
    smallest_grade: float = 1
    instruction: str | None = None
    metric: str = ""
    limit: int | None = None
    documents: int | None = None
    probe: str = PROBES[0]
    shift: bool = False

    def __post_init__(self) -> None:
        """Check it, and complete it.

        Raises:
            ValueError: If a part is missing or unknown.
        """
        where = f"The task {self.name!r}"
        _one_of(self.kind, KINDS, f"{where} has the kind")
        kind = KINDS[self.kind]
        missing = [name for name in kind.files if name not in self.files]
        if missing or len(self.files) > len(kind.files):
            raise ValueError(
                f"{where} is of the kind {self.kind}, whose files are {', '.join(kind.files)}; "
                + (f"{', '.join(missing)} is missing." if missing else f"it names {', '.join(self.files)}.")
            )
        for column in self.columns:
            _one_of(column, kind.columns, f"{where} names the column")
        if not isinstance(self.options, Mapping):
            raise ValueError(
                f"{where} has the options {self.options!r}; a mapping is expected, such as {{quoting: 3}}."
            )
        _one_of(self.format, FORMATS, f"{where} has the format")
        _one_of(self.metric or kind.metrics[0], kind.metrics, f"{where} has the metric")
        for what, number in (("limit", self.limit), ("number of documents", self.documents)):
            if number is not None and (not isinstance(number, int) or number < 1):
                raise ValueError(f"{where} has the {what} {number!r}; a number of rows, 1 or more, is expected.")
        if self.documents is not None and self.kind != "retrieval":
            raise ValueError(f"{where} is of the kind {self.kind}; documents is for retrieval, limit is for all.")
        self._check_words(where)
        object.__setattr__(self, "metric", self.metric or kind.metrics[0])

    def _check_words(self, where: str) -> None:
        _one_of(self.probe, PROBES, f"{where} has the probe")
        if self.kind != "words":
            if self.shift or self.probe != PROBES[0]:
                raise ValueError(f"{where} is of the kind {self.kind}; probe and shift are for words.")
            return
        if "label" not in self.columns:
            raise ValueError(
                f"{where} is of the kind words and names no column; say, for example, columns: {{label: pos}}."
            )
        if self.options:
            raise ValueError(f"{where} has options, which are for tables, and words are in none; leave them out.")
        if self.instruction is not None:
            raise ValueError(f"{where} has an instruction, which words are read without; leave it out.")


def read_plan(path: str | Path) -> list[TaskSpec]:
    """Read the tasks of a plan.

    Paths are relative to the plan's folder, and ``${NAME}`` in them is an environment variable.

    Args:
        path: A YAML file with a list ``tasks``.

    Returns:
        Its tasks, in order.

    Raises:
        ValueError: If it is no such plan; the message names the task and what is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no plan {path}.")
    try:
        plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"The plan {path} is no YAML: {' '.join(str(error).split())}") from error
    tasks = plan.get("tasks") if isinstance(plan, Mapping) else None
    if not isinstance(tasks, list) or not tasks or not all(isinstance(one, Mapping) for one in tasks):
        raise ValueError(
            f"The plan {path} has no list `tasks:` of tasks with name, kind and files (docs/evaluation.md)."
        )
    specs = [_spec(one, path.parent) for one in tasks]
    names = [spec.name for spec in specs]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"The plan {path} has several tasks called {', '.join(sorted(twice))}; name each differently.")
    return specs


def parse_task(text: str) -> list[TaskSpec]:
    """Read ``--task``: a plan, or one task with the usual names of columns.

    Args:
        text: ``plan.yaml``, or ``NAME=KIND:FILE[,FILE...]`` with the files in the order of :data:`KINDS`.

    Returns:
        The tasks.

    Raises:
        ValueError: If it is neither.

    Example:
        >>> [spec] = parse_task("intents=classification:train.csv,test.csv")
        >>> spec.files["test"], spec.metric
        ('test.csv', 'accuracy')
    """
    name, equals, rest = text.partition("=")
    kind, colon, files = rest.partition(":")
    if not equals:
        return read_plan(text)
    if not name or not colon:
        raise ValueError(f"--task {text!r} is neither a plan nor of the form NAME=KIND:FILE[,FILE...].")
    _one_of(kind, KINDS, f"--task {name!r} has the kind")
    return [TaskSpec(name, kind, dict(zip(KINDS[kind].files, files.split(","), strict=False)))]


def limited(spec: TaskSpec, limit: int | None) -> TaskSpec:
    """The task with so many rows of each table, if a limit is given."""
    return spec if limit is None else replace(spec, limit=limit)


def _spec(task: Mapping[str, Any], folder: Path) -> TaskSpec:
    name = str(task.get("name", "without a name"))
    if "name" not in task or "kind" not in task:
        raise ValueError(f"The task {name!r} of the plan needs a name and a kind: {', '.join(KINDS)}.")
    roles = {role for kind in KINDS.values() for role in kind.files}
    known = {one.name for one in fields(TaskSpec)} - {"files"}
    unknown = set(task) - known - roles
    if unknown:
        raise ValueError(
            f"The task {name!r} has {', '.join(map(str, sorted(unknown)))}, which a plan does not know. Known are "
            f"{', '.join(sorted(known))}, and files: {', '.join(sorted(roles))}."
        )
    files = {role: _path(task[role], folder, name) for role in task if role in roles}
    return TaskSpec(files=files, **{key: value for key, value in {**task, "name": name}.items() if key in known})


def _path(written: Any, folder: Path, name: str) -> str:
    """A path with its variables, relative to the plan's folder; the name of a dataset on the Hub stays as it is."""
    path = os.path.expandvars(str(written))
    unset = re.search(r"\$\{?(\w+)", path)
    if unset:
        raise ValueError(f"The task {name!r} has the file {written}, and the environment has no {unset[1]}. Set it.")
    beside = folder / Path(path).expanduser()
    return str(beside) if beside.suffix or beside.exists() else path


def _one_of(value: Any, known: Any, what: str) -> None:
    if value not in known:
        raise ValueError(f"{what} {value!r}; known are {', '.join(known)}.")
