from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from st_llm2vec import convert, load
from st_llm2vec.corpus import read_embeddings
from st_llm2vec.corpus import shard_files as shard_files_module
from st_llm2vec.corpus.job_folder import JobFolder
from st_llm2vec.corpus.shard_files import read_report
from tests.corpus.conftest import contents, gathered, run
from tests.promises import Promise


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncate_dim": 16}, "its settings.truncate_dim is null, and 16 was given"),
        ({"shard_rows": 33}, "its settings.shard_rows is 32, and 33 was given"),
        ({"prompt": "Another:"}, 'its encoder.prompt is "A passage: ?", and "Another:" was given'),
        ({"id_column": "name"}, 'its corpus.id_column is null, and "name" was given'),
        ({"normalize": True}, "settings.normalize"),
    ],
)
def test_a_folder_of_another_job_is_refused(
    options: dict[str, Any], message: str, encoder: str, source: Path, finished: Path
) -> None:
    before = contents(finished)
    with pytest.raises(ValueError, match=message):
        run(encoder, source, finished, **options)
    assert contents(finished) == before


def test_another_corpus_or_encoder_is_refused(
    decoder: str, encoder: str, source: Path, finished: Path, tmp_path: Path
) -> None:
    other = tmp_path / source.name
    other.write_bytes(source.read_bytes().replace(b"harbour", b"station"))
    with pytest.raises(ValueError, match=r"its corpus\.files"):
        run(encoder, other, finished)
    changed = load(encoder)
    with torch.no_grad():
        next(changed.transformer.model.parameters()).flatten()[0] += 1
    changed.save(str(tmp_path / "changed"))
    with pytest.raises(ValueError, match=r"its encoder\.encoder"):
        run(str(tmp_path / "changed"), source, finished)
    told = {"query": "Find the passage that answers:", "document": "A passage:"}
    convert(decoder, "sgpt", prompts=told, max_length=64).save(str(tmp_path / "other recipe"))
    with pytest.raises(ValueError, match=r"its encoder\.encoder"):
        run(str(tmp_path / "other recipe"), source, finished)


def test_a_folder_of_something_else_or_in_use_is_refused(encoder: str, source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; give a folder"):
        run(encoder, source, tmp_path / "file")
    with pytest.raises(ValueError, match="is no job's folder; give a new or an empty one"):
        run(encoder, source, tmp_path)
    (tmp_path / "o").mkdir()
    with FileLock(tmp_path / "o" / ".lock"), pytest.raises(ValueError, match="Another process is writing"):
        run(encoder, source, tmp_path / "o")


def test_an_unfinished_job_is_not_read(encoder: str, source: Path, tmp_path: Path) -> None:
    folder = JobFolder(tmp_path, "parquet")
    folder.adopt({"job": {}})
    with pytest.raises(ValueError, match="is not complete"):
        next(read_embeddings(tmp_path))
    with pytest.raises(ValueError, match="is no job's folder"):
        next(read_embeddings(tmp_path / "elsewhere"))


@pytest.mark.promise(Promise.RESUMED)
def test_a_damaged_shard_is_noticed(encoder: str, source: Path, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "o")
    shard = tmp_path / "o" / "shards" / "00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ValueError, match="is not a whole shard"):
        run(encoder, source, tmp_path / "o")


@pytest.mark.promise(Promise.RESUMED)
@pytest.mark.slow
def test_a_full_disk_is_a_sentence_and_corrupts_nothing(
    encoder: str, source: Path, finished: Path, tmp_path: Path
) -> None:
    """On a real file system that is too small, where one may be mounted."""
    small, kept = tmp_path / "small", tmp_path / "kept"
    small.mkdir()
    mount = ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o size=80k none {small} && "$@"', "sh"]
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    command = [sys.executable, "-m", "st_llm2vec", "embed", encoder, "--input", str(source)]
    command += ["--output", str(small / "o"), "--shard-rows", "32", "--batch-size", "8"]
    keep = ["sh", "-c", f'"$@"; code=$?; cp -r {small}/o {kept}; exit $code', "sh"]
    done = subprocess.run([*mount, *keep, *command], capture_output=True, text=True)
    assert done.returncode == 1
    assert "There is no space left" in done.stderr and "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(kept.rglob("*.part"))
    shards = sorted((kept / "shards").iterdir())
    assert 0 < len(shards) < 5 and all(read_report(shard).rows == 32 for shard in shards)
    run(encoder, source, kept)
    assert contents(kept) == contents(finished)


def test_a_full_disk_while_a_file_is_forced_out(
    encoder: str, source: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    fsync, calls = os.fsync, 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 9:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patch:
        patch.setattr(shard_files_module.os, "fsync", full)
        with pytest.raises(OSError, match="There is no space left for .* run the same command again"):
            run(encoder, source, tmp_path / "o")
    assert not list((tmp_path / "o").rglob("*.part"))
    run(encoder, source, tmp_path / "o")
    assert contents(tmp_path / "o") == contents(finished)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": "answer"}, "is not one of document, query"),
        ({"precision": "int4"}, "is not one of float32"),
        ({"precision": "bfloat16"}, "Parquet has no bfloat16"),
        ({"batch_size": 0}, "batch_size=0 is not a positive number"),
        ({"truncate_dim": -1}, "truncate_dim=-1 is not a positive number"),
        ({"truncate_dim": 1000}, "is more than the encoder's 192 dimensions"),
        ({"prompt": "a", "prompt_name": "b"}, "not both"),
        ({"prompt_name": "poem"}, "has no prompt 'poem'; it has query, document"),
        ({"encoder": "no/such/encoder/at/all"}, "There is no folder no/such/encoder/at/all"),
    ],
)
def test_settings_that_cannot_be(
    options: dict[str, Any], message: str, encoder: str, source: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        run(options.pop("encoder", encoder), source, tmp_path / "o", **options)
    assert not (tmp_path / "o" / "embeddings.json").exists()


def test_an_empty_corpus_and_one_of_bad_rows(encoder: str, tmp_path: Path) -> None:
    empty, bad = tmp_path / "empty.txt", tmp_path / "bad.jsonl"
    empty.touch()
    bad.write_text('{"text": null}\n' * 3)
    with pytest.raises(ValueError, match="holds no rows"):
        run(encoder, empty, tmp_path / "a")
    assert run(encoder, bad, tmp_path / "b")["rejected"] == 3
    assert gathered(tmp_path / "b")[1].shape == (0, 192)
