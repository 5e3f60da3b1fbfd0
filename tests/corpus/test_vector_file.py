"""All vectors in one file, all or nothing."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from safetensors.numpy import load_file

from st_llm2vec.corpus.vector_file import vector_file

from ..disks import small_disk

FORMATS = ("npy", "safetensors", "parquet")
VECTORS = np.arange(12, dtype=np.float32).reshape(3, 4)
COLUMNS = Dataset.from_dict({"text": ["a", "b", "c"]})


def fill(path: Path, vectors: np.ndarray = VECTORS, columns: Dataset = COLUMNS) -> None:
    with vector_file(path, *vectors.shape, columns) as write:
        write(vectors)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    for name in FORMATS:
        fill(tmp_path / f"new.{name}")
    assert (np.load(tmp_path / "new.npy") == VECTORS).all()
    assert (load_file(tmp_path / "new.safetensors")["embeddings"] == VECTORS).all()
    assert Dataset.from_parquet(str(tmp_path / "new.parquet"))["embedding"][2] == VECTORS[2].tolist()
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk(tmp_path: Path, name: str) -> None:
    many = np.ones((5000, 64), np.float32)
    columns = Dataset.from_dict({"text": ["a"] * len(many)})
    with small_disk(tmp_path / "disk", "1m") as disk:
        fill(disk / f"out.{name}")
        before = (disk / f"out.{name}").read_bytes()
        with pytest.raises(OSError, match=f"There is no space left for .*out.{name}.*as it was; make space"):
            fill(disk / f"out.{name}", many, columns)
        assert (disk / f"out.{name}").read_bytes() == before
        assert [file.name for file in disk.iterdir()] == [f"out.{name}"]


def test_a_folder_that_may_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*arguments: object, **options: object) -> None:
        raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path))

    monkeypatch.setattr("tempfile.mkdtemp", denied)
    with pytest.raises(PermissionError, match=r"out.npy may not be written .*give another path"):
        fill(tmp_path / "out.npy")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a process is forked and killed")
def test_what_a_kill_left_is_gone_with_the_next(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        with vector_file(tmp_path / "out.npy", *VECTORS.shape, COLUMNS):
            os._exit(9)
    os.waitpid(child, 0)
    assert [file.name[:16] for file in tmp_path.iterdir()] == [".saving-out.npy-"]
    fill(tmp_path / "out.npy")
    assert [file.name for file in tmp_path.iterdir()] == ["out.npy"]
