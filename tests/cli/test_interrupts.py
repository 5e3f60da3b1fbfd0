"""Ctrl-C: what is done is kept, the message says so, and the same command goes on to what it would have made."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from typer.testing import CliRunner, Result

from st_llm2vec import convert, load
from st_llm2vec.cli import app
from st_llm2vec.corpus.job_folder import JobFolder
from st_llm2vec.losses import SimCSELoss

from ..conftest import TEXTS, cosine_distance
from ..hub_server import Hub
from ..promises import Promise
from ..publishing.conftest import hub, same_process  # noqa: F401

pytestmark = pytest.mark.promise(Promise.RESUMED)


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """Hear the signal of Ctrl-C, which a shell has processes in its background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def interrupt(patch: pytest.MonkeyPatch, owner: type, method: str, calls: int) -> None:
    """Send this process the signal of Ctrl-C when a method is called so many times."""
    real: Callable[..., Any] = getattr(owner, method)
    left = calls

    def interrupted(*arguments: Any, **options: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments, **options)

    patch.setattr(owner, method, interrupted)


def stopped(result: Result) -> str:
    assert result.exit_code == 130 and "Traceback" not in result.stderr, result.stderr
    return " ".join(result.stderr.split())


def test_train(decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(f"The {word} stood by the river." for word in "mill inn oak hut barn".split()))
    plan = {
        "model": decoder,
        "recipe": "llm2vec",
        "stages": [{"stage": "simcse", "data": str(texts), "max_length": 16}],
        "training": {"max_steps": 4, "save_steps": 2, "per_device_train_batch_size": 4, "use_cpu": True},
    }
    (tmp_path / "plan.yaml").write_text(json.dumps(plan))

    def train(name: str) -> Result:
        return run("train", "--plan", tmp_path / "plan.yaml", "--output", tmp_path / name)

    for calls, kept in ((1, "has no checkpoint yet and begins again"), (4, "is kept up to step 2")):
        with monkeypatch.context() as patch:
            interrupt(patch, SimCSELoss, "forward", calls)
            assert f"Stopped. Stage 1 of 1, simcse, {kept}" in stopped(train("out"))
    assert train("out").exit_code == 0
    assert (
        load(tmp_path / "out").manifest.stages[0]["steps"] == 4
    )  # with which weights, tests/training/test_resume.py says
    assert not [one.name for one in tmp_path.iterdir() if one.name.startswith(".")]


def test_embed(decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(decoder, "llm2vec", max_length=64).save_pretrained(str(tmp_path / "encoder"))
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS))

    def embed(name: str) -> Result:
        options = ["--input", tmp_path / "texts.txt", "--output", tmp_path / name, "--shard-rows", 2, "--device", "cpu"]
        return run("embed", tmp_path / "encoder", *options)

    with monkeypatch.context() as patch:
        interrupt(patch, JobFolder, "write", 2)
        assert "Stopped. What is done is kept: run the same command again" in stopped(embed("out"))
    assert [one.name for one in (tmp_path / "out/shards").iterdir()] == ["00000.parquet"]
    for name in ("out", "whole"):
        assert embed(name).exit_code == 0
    files = sorted(one.relative_to(tmp_path / "whole") for one in (tmp_path / "whole").rglob("*") if one.is_file())
    assert len(files) > 3 and all(
        (tmp_path / "out" / one).read_bytes() == (tmp_path / "whole" / one).read_bytes() for one in files
    )


@pytest.mark.slow
@pytest.mark.usefixtures("same_process")
def test_publish(decoder: str, tmp_path: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    encoder = convert(decoder, "llm2vec", max_length=64)
    encoder.save_pretrained(str(tmp_path / "encoder"))
    command = ["publish", tmp_path / "encoder", "org/encoder", "--output", tmp_path / "kept"]
    with monkeypatch.context() as patch:
        interrupt(patch, HfApi, "preupload_lfs_files", 1)
        assert "org/encoder holds all of it or nothing of it" in stopped(run(*command))
    assert set(hub.repositories["org/encoder"].files) == {".gitattributes"}
    assert [one.name for one in tmp_path.iterdir() if one.name not in ("encoder", "cache")] == []
    done = run(*command)
    assert done.exit_code == 0, done.stderr
    assert cosine_distance(load("org/encoder").encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
