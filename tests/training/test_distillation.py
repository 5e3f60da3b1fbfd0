"""A student learns a teacher's similarities, and the teacher is asked once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from st_llm2vec import TextEncoder, convert, load
from st_llm2vec.training import Distillation, build_stages, teacher

from ..conftest import TEXTS, cosine_distance

TRAINING = {
    "max_steps": 8,
    "per_device_train_batch_size": 16,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "logging_steps": 1,
    "use_cpu": True,
    "disable_tqdm": True,
}


@pytest.fixture(autouse=True)
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the teacher's vectors are kept."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "st-llm2vec" / "teachers"


@pytest.fixture
def narrow(tiny: Callable[..., str], tmp_path: Path) -> str:
    """A teacher of another width than the student's."""
    encoder = convert(tiny("llama"), "sgpt", dtype=torch.float32, measure=False)
    encoder.save(str(tmp_path / "teacher"))
    return str(tmp_path / "teacher")


def distance(student: TextEncoder, teacher: str) -> float:
    """How far the student's similarities are from the teacher's."""
    first, second = (one.encode(TEXTS, normalize_embeddings=True) for one in (student, load(teacher)))
    return float(np.square(first @ first.T - second @ second.T).mean())


def test_a_student_comes_near_a_teacher_of_another_width(
    decoder: str, tmp_path: Path, texts_file: str, narrow: str, kept: Path
) -> None:
    before = convert(decoder, "llm2vec", dtype=torch.float32, measure=False)
    assert before.get_embedding_dimension() != load(narrow).get_embedding_dimension()
    plan = {
        "model": decoder,
        "training": TRAINING,
        "stages": [{"stage": "distillation", "data": texts_file, "teacher": narrow, "max_length": 32}],
    }
    [stage] = build_stages(plan, tmp_path / "out")
    encoder = stage.run()
    assert distance(encoder, narrow) < 0.9 * distance(before, narrow)
    record = encoder.manifest.stages[-1]
    assert (record["name"], record["steps"], record["merged"]) == ("distillation", 8, True)
    assert record["settings"]["teacher"] == narrow and record["settings"]["columns"] == ["text"]
    plain = SentenceTransformer(str(tmp_path / "out"))
    assert cosine_distance(plain.encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
    [file] = kept.iterdir()
    assert np.load(file).shape[1] == load(narrow).get_embedding_dimension()
    files = json.loads((tmp_path / "out/training_run.json").read_text())["files"]
    assert set(files) == {texts_file, f"{narrow}/model.safetensors"}


def test_the_teacher_is_asked_once_for_its_texts_and_prompt(
    decoder: str, tmp_path: Path, pairs_file: str, narrow: str, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    encode = TextEncoder.encode

    def count(self: TextEncoder, texts: Any, *more: Any, **options: Any) -> Any:
        asked.append(len(texts))
        return encode(self, texts, *more, **options)

    def read(**more: Any) -> Any:
        fields = {"columns": ["query", "positive"], "teacher": narrow, "training": TRAINING, **more}
        made = Distillation(model=decoder, output=str(tmp_path / "out"), data=pairs_file, **fields)
        return made.read(made.start()).dataset

    monkeypatch.setattr(TextEncoder, "encode", count)
    rows = read()
    assert sum(asked) == 2 * len(rows)
    assert read()["label"][:] == rows["label"][:] and sum(asked) == 2 * len(rows)
    read(teacher_prompt="Topic: ")
    assert sum(asked) == 4 * len(rows) and len(list(kept.iterdir())) == 2
    vectors = encode(load(narrow), [rows[3]["query"], rows[3]["positive"]])
    assert cosine_distance(np.array(rows[3]["label"]), vectors) < 1e-6


def test_vectors_that_are_not_all_there_are_not_kept(
    tmp_path: Path, texts_file: str, narrow: str, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = teacher.Dataset.from_dict({"text": TEXTS})
    monkeypatch.setattr(teacher, "AT_ONCE", 2)
    encode, calls = TextEncoder.encode, []

    def stop(self: TextEncoder, some: Any, *more: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, some, *more, **options)

    monkeypatch.setattr(TextEncoder, "encode", stop)
    with pytest.raises(KeyboardInterrupt):
        teacher.with_teacher_vectors(texts, narrow)
    assert not list(kept.glob("*.npy"))
    monkeypatch.setattr(TextEncoder, "encode", lambda self, some, **options: torch.full((len(some), 4), torch.nan))
    with pytest.raises(ValueError, match="gives a vector that is not finite, of 'A"):
        teacher.with_teacher_vectors(teacher.Dataset.from_dict({"text": ["A cat.", "A dog."]}), narrow)
    assert not list(kept.glob("*.npy"))


def test_what_is_no_teacher_or_no_data_is_refused(decoder: str, tmp_path: Path, texts_file: str, narrow: str) -> None:
    for data, fields, message in [
        (texts_file, {}, "has no teacher; name a stronger encoder"),
        (texts_file, {"teacher": decoder}, "is no encoder: it has no modules.json"),
        (texts_file, {"teacher": narrow, "columns": ["query"]}, "no column 'query'"),
        (texts_file, {"teacher": narrow, "training": {**TRAINING, "per_device_train_batch_size": 1}}, "one row"),
    ]:
        made = Distillation(model=decoder, output=str(tmp_path / "out"), data=data, **{"training": TRAINING, **fields})
        with pytest.raises(ValueError, match=message):
            made.run()
        assert not (tmp_path / "out").exists()
