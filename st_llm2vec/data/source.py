"""A source of training rows, as data: where it lies, what its task is, and how its rows are read and instructed."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from datasets import Dataset

from st_llm2vec.data.collection import FORMATS, ROLES, CollectionFiles
from st_llm2vec.data.shapes import NLI_LABELS
from st_llm2vec.data.source_errors import FieldError, Place, about
from st_llm2vec.data.task_types import PAIRS, TASKS, Shape
from st_llm2vec.recipe.config import closest

BY = ("examples", "names")


@dataclass(frozen=True)
class ClassOptions:
    """How rows are made of classes.

    Args:
        by: ``examples``: a positive is another text of the class (NV-Embed v2); ``names``: it is the name of the class (v1).
        names: What each class is called; by default its label, with blanks for underscores.
        balanced: As for :func:`pairs_from_labels`.
        smallest: Classes of fewer texts are left out.
        pattern: A regular expression; the class is the part of the label that it finds.
    """

    by: str = "examples"
    names: Mapping[str, str] = field(default_factory=dict)
    balanced: bool = False
    smallest: int = 1
    pattern: str | None = None

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise FieldError(f"classes are told by {self.by!r}; known are {', '.join(BY)}.", "classes")
        if self.pattern is not None:
            try:
                re.compile(str(self.pattern))
            except re.error as error:
                raise FieldError(
                    f"The pattern {self.pattern!r} of classes cannot be read: {error}.", "classes"
                ) from error


@dataclass
class TrainingSource:
    """Where rows of query, positive and hard negatives come from, and how they are instructed.

    Args:
        path: As for :func:`read_dataset`; or a dataset.
        columns: Which column is what: ``{"query": name, "positive": name, "negative": name or names}``. The positive's
            and the negatives' columns may hold lists; each of several positives gives a row. By default ``query`` or
            ``anchor``, ``positive``, and all whose names begin with ``negative``; FlagEmbedding's ``query``, ``pos`` and
            ``neg``; or SimCSE's ``sent0``, ``sent1`` and ``hard_neg``. Other rows have other roles, by their task:
            :data:`st_llm2vec.data.task_types.TASKS`.
        split: The split to read.
        query_instruction: The bare instruction of the queries; by default what FlagEmbedding's ``prompt`` holds.
        document_instruction: That of the positives and negatives; none in LLM2Vec, NV-Embed and E5.
        symmetric: Whether both sides are queries, so that the query's instruction is everyone's (similarity tasks). By
            default as the task has it, and not without one.
        in_batch_negatives: Whether other rows' documents are negatives: right for retrieval, wrong for classification,
            clustering and similarity (NV-Embed, arXiv 2405.17428, section 3.3). By default as the task has it, and so
            without one.
        negatives: How many hard negatives each row gets, where there is a column of them. Fewer in the data are
            repeated by turns, of more the first are taken. NV-Embed uses 7, LLM2Vec and E5 1.
        name: The dataset's name; by default the file's, or the Hub's.
        limit: Rows to take, drawn at random; all by default.
        column_names: As for ``read_dataset(columns=...)``: names for a ``.csv`` or ``.tsv`` file without any.
        options: As for :func:`read_dataset`; those of a collection stand in ``collection``.
        task: A key of :data:`st_llm2vec.data.task_types.TASKS`: what the rows may look like, and what is right for them.
        weight: How often a row is drawn in an epoch: 0.5 draws half of the rows, 2 each of them twice.
        min_score: The smallest score of a positive pair; by default the task's.
        labels: How NLI's labels write ``entailment`` and ``contradiction``; by default 0 and 2.
        classes: Fields of :class:`ClassOptions`.
        collection: Files of a test collection, in place of ``path``: fields of :class:`CollectionFiles`, its files among
            them. Each relevant document gives a row.
        corpus: Texts to mine negatives in, besides the positives: as for :func:`read_dataset`, in the column ``text``.
        hub: The dataset's name on the Hub, which is read where there is no ``path`` or no such file.
        licence: The licence of the data, for people.
        note: Anything else that people should know of it.

    Raises:
        ValueError: If a field cannot be what it is.

    Example:
        >>> TrainingSource.from_dict({"path": "nq.jsonl", "query_instruction": "Find the answer:", "limit": 1000}).limit
        1000
    """

    path: str | Sequence[str] | Dataset | None = None
    columns: Mapping[str, Any] | None = None
    split: str = "train"
    query_instruction: str | None = None
    document_instruction: str | None = None
    symmetric: bool | None = None
    in_batch_negatives: bool | None = None
    negatives: int = 1
    name: str | None = None
    limit: int | None = None
    column_names: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None
    weight: float = 1.0
    min_score: float | None = None
    labels: Mapping[str, Any] = field(default_factory=lambda: dict(NLI_LABELS))
    classes: Mapping[str, Any] = field(default_factory=dict)
    collection: Mapping[str, Any] | None = None
    corpus: str | Sequence[str] | None = None
    hub: str | None = None
    licence: str | None = None
    note: str | None = None
    place: Place | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self._check_task()
        self._check_columns()
        self._check_numbers()
        if self.path is None and self.hub is None and self.collection is None:
            raise FieldError(
                f"A training source needs a path; {self.label} has none, no hub and no collection.", "name"
            )
        if self.symmetric and self.document_instruction:
            raise FieldError(
                f"The source {self.label} is symmetric, so that the query's instruction is the documents' too, and "
                f"document_instruction={self.document_instruction!r} was given; keep one.",
                "document_instruction",
            )
        with about("classes"):
            self.class_options = _fields(ClassOptions, self.classes, f"classes of {self.label}")
        self.collection_files = None if self.collection is None else self._collection_files()

    def _check_task(self) -> None:
        if self.task is not None and self.task not in TASKS:
            raise FieldError(
                f"The source {self.label} has the task {self.task!r}{closest(str(self.task), list(TASKS))} Known are "
                f"{', '.join(TASKS)}.",
                "task",
            )
        kind = TASKS.get(self.task or "")
        by_names = dict(self.classes or {}).get("by") == "names"
        if self.symmetric is None:  # by names, the documents are those names
            self.symmetric = kind is not None and kind.symmetric and not by_names and not self.document_instruction
        if self.in_batch_negatives is None:
            self.in_batch_negatives = kind is None or kind.in_batch_negatives
        if self.min_score is None:
            self.min_score = 1 if kind is None else kind.min_score
        self.shapes: tuple[Shape, ...] = (PAIRS,) if kind is None else kind.shapes

    def _check_columns(self) -> None:
        for name in ("columns", "classes", "labels", "collection", "options"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) and not (value is None and name in ("columns", "collection")):
                raise FieldError(
                    f"{name}={value!r} of the source {self.label} must be a mapping"
                    + (": {query: name, positive: name}." if name == "columns" else "."),
                    name,
                )
        for name in ("query_instruction", "document_instruction"):
            value = getattr(self, name)
            if not isinstance(value, str | None):
                raise FieldError(f"{name}={value!r} of the source {self.label} must be a text.", name)

    def _check_numbers(self) -> None:
        for name in ("negatives", "limit"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < (name == "limit")):
                raise FieldError(
                    f"{name}={value!r} of the source {self.label} must be a number of texts or rows.", name
                )
        for name in ("weight", "min_score"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or (name == "weight" and value <= 0):
                raise FieldError(f"{name}={value!r} of the source {self.label} must be a number above 0.", name)
        for name in ("symmetric", "in_batch_negatives"):
            if not isinstance(getattr(self, name), bool):
                raise FieldError(
                    f"{name}={getattr(self, name)!r} of the source {self.label} must be true or false.", name
                )

    def _collection_files(self) -> CollectionFiles:
        if self.options:
            raise FieldError(
                f"The source {self.label} has options={dict(self.options)} beside its collection, which does not read them. Put "
                "them into it: collection: {..., options: {...}}.",
                "options",
            )
        given = dict(self.collection or {})
        files = {role: str(given.pop(role)) for role in ROLES if role in given}
        missing = [role for role in ROLES if role not in files]
        if missing:
            raise FieldError(
                f"The collection of {self.label} names no {missing[0]}; it needs {', '.join(ROLES)}.", "collection"
            )
        with about("collection"):
            found = _fields(CollectionFiles, {**given, "files": files}, f"the collection of {self.label}")
            if found.format not in FORMATS:
                raise ValueError(f"The format of {self.label} is {found.format!r}; known are {', '.join(FORMATS)}.")
        return found

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainingSource:
        """Build a source from plain data, such as a mapping in a YAML file.

        Raises:
            ValueError: If a field does not exist, where the data is is missing, or a value cannot be.
        """
        names = [one.name for one in dataclasses.fields(cls) if one.name != "place"]
        unknown = next((name for name in data if name not in names), None)
        if unknown is not None:
            fields = f"Fields: {', '.join(names)}{closest(str(unknown), names)}"
            raise FieldError(f"A training source has no field {unknown!r}. {fields}", str(unknown))
        if not {"path", "hub", "collection"} & set(data):
            raise ValueError(f"A training source needs a path, a hub or a collection; got {dict(data)!r}.")
        return cls(**data)

    @property
    def label(self) -> str:
        """The dataset's name, of letters, digits, hyphens and underscores."""
        if self.name is not None:
            return str(self.name)
        if isinstance(self.path, Dataset):
            return "dataset"
        path = self.path if self.path is not None else self.hub or dict(self.collection or {}).get("corpus")
        names = path if isinstance(path, list | tuple) else [path]
        stem = Path(str(next(iter(names), ""))).name.split(".")[0]
        return re.sub(r"[^\w-]+", "_", stem).strip("_") or "dataset"

    @property
    def where(self) -> str:
        """What the source is called in messages of its rows: its file, where they are the file's own, or its name."""
        files = self.files
        return files[0] if self.shapes == (PAIRS,) and self.collection is None and len(files) == 1 else self.label

    @property
    def instructions(self) -> tuple[str | None, str | None]:
        """The query's and the documents' instruction."""
        return self.query_instruction, self.query_instruction if self.symmetric else self.document_instruction

    def roles(self, shape: Shape) -> dict[str, str]:
        """The column of each role; its own name where ``columns`` names none."""
        return {role: str((self.columns or {}).get(role, role)) for role in shape}

    @property
    def files(self) -> list[str]:
        """The local files or the names that the source reads."""
        if self.collection_files is not None:
            return list(self.collection_files.files.values())
        if isinstance(self.path, Dataset):
            return []
        given = self.path if self.path is not None else self.hub
        return [str(one) for one in (given if isinstance(given, list | tuple) else [given])]


def _fields(kind: Any, given: Mapping[str, Any], what: str) -> Any:
    names = [one.name for one in dataclasses.fields(kind)]
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        raise ValueError(
            f"There is no {unknown!r} in {what}{closest(str(unknown), names)} There are {', '.join(names)}."
        )
    return kind(**given)
