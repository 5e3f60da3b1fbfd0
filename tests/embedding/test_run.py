from __future__ import annotations

import contextlib
import itertools
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.quantization import quantize_embeddings

from st_llm2vec import convert, load
from st_llm2vec.embedding import EmbeddingSettings, Progress, embed_corpus, open_source, read_embeddings
from st_llm2vec.embedding import shard_files as shard_files_module
from st_llm2vec.embedding.folder import JobFolder
from st_llm2vec.embedding.shard_files import read_report
from tests.conftest import cosine_distance
from tests.embedding.conftest import contents, corpus

ROWS = 130


def run(encoder: str, source: Path, output: Path, **options: Any) -> dict[str, Any]:
    devices, id_column, show = (options.pop(name, None) for name in ("devices", "id_column", "on_progress"))
    settings = EmbeddingSettings(encoder, **{"shard_rows": 32, "batch_size": 8, **options})
    return embed_corpus(open_source([source], id_column=id_column), output, settings, devices=devices, on_progress=show)


def gathered(output: Path) -> tuple[list[Any], torch.Tensor]:
    shards = list(read_embeddings(output))
    return [one for ids, _ in shards for one in ids], torch.cat([vectors for _, vectors in shards])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus(tmp_path_factory.mktemp("corpus") / "corpus.jsonl", ROWS)


@pytest.fixture(scope="module")
def texts(source: Path) -> dict[int, str]:
    """The good rows, by number."""
    records = [json.loads(line)["text"] for line in source.read_text().splitlines()]
    return {number: text for number, text in enumerate(records) if text is not None}


@pytest.fixture(scope="module")
def expected(encoder: str, texts: dict[int, str]) -> np.ndarray:
    return SentenceTransformer(encoder).encode_document(list(texts.values()))


@pytest.fixture(scope="module")
def finished(encoder: str, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing disturbed."""
    output = tmp_path_factory.mktemp("finished") / "output"
    run(encoder, source, output)
    return output


def test_vectors_are_the_encoders_and_ids_the_row_numbers(
    finished: Path, texts: dict[int, str], expected: np.ndarray
) -> None:
    ids, vectors = gathered(finished)
    assert ids == list(texts)
    assert vectors.dtype == torch.float32
    assert cosine_distance(vectors.numpy(), expected) < 1e-6


def test_bad_rows_are_recorded_and_counted(finished: Path, texts: dict[int, str], encoder: str) -> None:
    records = [json.loads(line) for file in sorted((finished / "rejected").iterdir()) for line in file.open()]
    left_out = [record["row"] for record in records if not record["embedded"]]
    cut = [record["row"] for record in records if record["embedded"]]
    assert left_out == sorted(set(range(ROWS)) - set(texts))
    assert cut == [number for number, text in texts.items() if len(text) > 500]
    assert {record["problem"] for record in records if not record["embedded"]} == {"null"}
    assert all("the encoder reads 64" in record["problem"] for record in records if record["embedded"])
    summary = json.loads((finished / "embeddings.json").read_text())["summary"]
    assert summary["rows"] == ROWS == summary["embedded"] + summary["rejected"]
    assert (summary["embedded"], summary["truncated"], summary["shards"]) == (len(texts), len(cut), 5)
    loaded = load(encoder)
    features = [loaded.preprocess([text], prompt=loaded.prompts["document"]) for text in texts.values()]
    assert summary["tokens"] == sum(one["attention_mask"].sum().item() for one in features)


def test_texts_that_are_too_long_can_be_left_out(
    encoder: str, source: Path, texts: dict[int, str], tmp_path: Path
) -> None:
    summary = run(encoder, source, tmp_path / "a", too_long="skip")
    short = [number for number, text in texts.items() if len(text) < 500]
    assert gathered(tmp_path / "a")[0] == short
    assert (summary["truncated"], summary["rejected"]) == (0, ROWS - len(short))
    run(encoder, source, tmp_path / "b", max_chars=500)
    assert gathered(tmp_path / "b")[0] == short


def test_queries_prompts_and_names(encoder: str, source: Path, texts: dict[int, str], tmp_path: Path) -> None:
    stock, given = SentenceTransformer(encoder), list(texts.values())
    queries = stock.encode_query(given)
    run(encoder, source, tmp_path / "a", task="query")
    run(encoder, source, tmp_path / "b", prompt_name="query", id_column="name", file_format="safetensors")
    run(encoder, source, tmp_path / "c", prompt="")
    assert cosine_distance(gathered(tmp_path / "a")[1].numpy(), queries) < 1e-6
    ids, vectors = gathered(tmp_path / "b")
    assert ids == [f"row {number}" for number in texts]
    assert cosine_distance(vectors.numpy(), queries) < 1e-6
    assert cosine_distance(gathered(tmp_path / "c")[1].numpy(), stock.encode(given, prompt="")) < 1e-6


@pytest.mark.parametrize("precision", ["int8", "uint8", "binary", "ubinary"])
@pytest.mark.parametrize("file_format", ["parquet", "safetensors"])
def test_quantisation_is_sentence_transformers_own(
    precision: str, file_format: str, encoder: str, source: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    run(encoder, source, tmp_path / "o", precision=precision, file_format=file_format, calibration_rows=40)
    stored = gathered(tmp_path / "o")[1].numpy()
    first = expected[:40]
    ranges = np.stack([first.min(axis=0), first.max(axis=0)])
    wanted = quantize_embeddings(expected, precision, ranges=ranges if "int8" in precision else None)
    assert stored.dtype == wanted.dtype and stored.shape == wanted.shape
    if "int8" in precision:
        assert np.abs(stored.astype(int) - wanted.astype(int)).max() <= 1
        assert np.allclose(JobFolder(tmp_path / "o", file_format).ranges(), ranges, atol=1e-5)
    else:
        bits = [np.unpackbits(one.astype(np.int16).astype(np.uint8), axis=1) for one in (stored, wanted)]
        assert (bits[0] == bits[1]).mean() > 0.999


@pytest.mark.parametrize(("precision", "file_format"), [("bfloat16", "safetensors"), ("float16", "parquet")])
def test_half_precision_and_matryoshka(
    precision: str, file_format: str, encoder: str, source: Path, tmp_path: Path, expected: np.ndarray
) -> None:
    options = {"precision": precision, "file_format": file_format, "truncate_dim": 32, "normalize": True}
    run(encoder, source, tmp_path / "o", **options)
    vectors = gathered(tmp_path / "o")[1]
    assert vectors.dtype == getattr(torch, precision) and vectors.shape[1] == 32
    assert torch.allclose(vectors.float().norm(dim=1), torch.ones(len(vectors)), atol=1e-2)
    assert cosine_distance(vectors.float().numpy(), expected[:, :32]) < 1e-4


def test_custom_encoders(decoder: str, source: Path, texts: dict[int, str], tmp_path: Path) -> None:
    convert(decoder, "echo", max_length=64).save(str(tmp_path / "echo"))
    summary = run(str(tmp_path / "echo"), source, tmp_path / "o")
    vectors = load(tmp_path / "echo").encode_document(list(texts.values()))
    assert cosine_distance(gathered(tmp_path / "o")[1].numpy(), vectors) < 1e-6
    assert summary["truncated"] == sum(len(text) > 500 for text in texts.values())


def test_memory_holds_one_shard(encoder: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source is never read further than the shard that is worked on."""
    opened = open_source([source])
    read = 0
    rows = opened.rows

    def counted(start: Any) -> Any:
        nonlocal read
        for row in rows(start):
            read += 1
            yield row

    monkeypatch.setattr(opened, "rows", counted)
    ahead: list[int] = []
    settings = EmbeddingSettings(encoder, shard_rows=32, batch_size=8)
    embed_corpus(opened, tmp_path / "o", settings, on_progress=lambda progress: ahead.append(read - progress.rows))
    assert max(ahead) <= 32


def test_progress_reaches_the_end(encoder: str, source: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    summary = run(encoder, source, tmp_path / "o", on_progress=seen.append)
    assert [one.rows for one in seen] == sorted(one.rows for one in seen)
    assert (seen[-1].rows, seen[-1].total, seen[-1].tokens) == (ROWS, ROWS, summary["tokens"])
    assert seen[-1].seconds_left == 0 and seen[-1].tokens_per_second > seen[-1].texts_per_second > 0


# Resuming -----------------------------------------------------------------------------------------------


def test_a_finished_job_is_left_as_it_is(encoder: str, source: Path, finished: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (finished / "shards").iterdir()}
    run(encoder, source, finished, batch_size=16)
    assert {file: file.stat().st_mtime_ns for file in (finished / "shards").iterdir()} == before


@pytest.mark.parametrize("gone", list(itertools.combinations(range(5), 2)))
def test_any_missing_shards_are_made_again(
    gone: tuple[int, ...], encoder: str, source: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "o")
    for shard in gone:
        (tmp_path / "o" / "shards" / f"{shard:05d}.parquet").unlink()
        (tmp_path / "o" / "rejected" / f"{shard:05d}.jsonl").unlink(missing_ok=True)
    (tmp_path / "o" / "shards" / ".00001.parquet.99.part").write_bytes(b"torn")
    run(encoder, source, tmp_path / "o")
    assert contents(tmp_path / "o") == contents(finished)


@pytest.mark.parametrize("step", range(1, 13))
def test_a_failure_at_any_write_leaves_a_folder_that_can_be_resumed(
    step: int, encoder: str, source: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the power went at that moment: neither clean-up nor renaming happens any more."""
    calls = 0
    fsync, replace = os.fsync, os.replace

    class PowerCut(BaseException):
        pass

    def cut(real: Any) -> Any:
        def wrapped(*arguments: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step * 2:
                raise PowerCut
            return real(*arguments)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", cut(fsync))
        patch.setattr(os, "replace", cut(replace))
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        with pytest.raises(PowerCut):
            run(encoder, source, tmp_path / "o")
    run(encoder, source, tmp_path / "o")
    assert contents(tmp_path / "o") == contents(finished)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which saves starting Python five times")
def test_killed_at_random_moments_and_resumed_it_is_the_same(
    encoder: str, source: Path, finished: Path, tmp_path: Path
) -> None:
    processes, moments = multiprocessing.get_context("fork"), np.random.default_rng(6)
    for _ in range(5):
        begun = processes.Process(target=run, args=(encoder, source, tmp_path / "o"))
        begun.start()
        wait_for(tmp_path / "o" / "embeddings.json", begun.is_alive)
        time.sleep(float(moments.uniform(0, 0.3)))
        os.kill(begun.pid or 0, signal.SIGKILL)
        begun.join()
        assert begun.exitcode == -signal.SIGKILL or begun.exitcode == 0
    run(encoder, source, tmp_path / "o")
    assert contents(tmp_path / "o") == contents(finished)


@pytest.mark.slow
def test_the_command_killed_ten_times_and_resumed_gives_the_same(
    encoder: str, source: Path, finished: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "st_llm2vec", "embed", encoder, "--input", str(source), "--json"]
    command += ["--output", str(tmp_path / "o"), "--shard-rows", "32", "--batch-size", "8"]
    moments = np.random.default_rng(10)
    for _ in range(10):
        begun = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(tmp_path / "o" / "embeddings.json", lambda begun=begun: begun.poll() is None)
        time.sleep(float(moments.uniform(0, 12)))
        begun.send_signal(signal.SIGKILL)
        begun.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "o") == contents(finished)


def wait_for(file: Path, alive: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not file.is_file() and alive() and time.monotonic() < deadline:
        time.sleep(0.005)


def test_several_processes_give_the_same(encoder: str, source: Path, finished: Path, tmp_path: Path) -> None:
    run(encoder, source, tmp_path / "o", devices=["cpu", "cpu"])
    assert contents(tmp_path / "o") == contents(finished)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for processes in /proc")
def test_the_processes_of_a_killed_job_end_too(encoder: str, source: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "st_llm2vec", "embed", encoder, "--input", str(source), "--json"]
    command += ["--output", str(tmp_path / "o"), "--shard-rows", "8", "--device", "cpu", "--device", "cpu"]
    mark = f"MARK={tmp_path}"
    environment = {**os.environ, "MARK": str(tmp_path)}
    begun = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    wait_for(tmp_path / "o" / "embeddings.json", lambda: begun.poll() is None)

    def alive() -> list[Path]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                ended = "State:\tZ" in (folder / "status").read_text()
                if not ended and mark.encode() in (folder / "environ").read_bytes():
                    found.append(folder)
        return found

    assert len(alive()) >= 3
    begun.send_signal(signal.SIGKILL)
    begun.wait()
    deadline = time.monotonic() + 60
    while alive() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive()


# What is refused ----------------------------------------------------------------------------------------


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
    with pytest.raises(ValueError, match=r"its encoder\.weights"):
        run(str(tmp_path / "changed"), source, finished)


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


def test_a_damaged_shard_is_noticed(encoder: str, source: Path, finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "o")
    shard = tmp_path / "o" / "shards" / "00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ValueError, match="is not a whole shard"):
        run(encoder, source, tmp_path / "o")


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
