from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tqdm.std import tqdm

from tests.conftest import but_first
from tests.corpus.conftest import contents, run
from tests.promises import Promise


def test_a_finished_job_is_left_as_it_is(encoder: str, source: Path, finished: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (finished / "shards").iterdir()}
    run(encoder, source, finished, batch_size=16)
    assert {file: file.stat().st_mtime_ns for file in (finished / "shards").iterdir()} == before


@pytest.mark.promise(Promise.RESUMED)
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


@pytest.mark.promise(Promise.RESUMED)
@pytest.mark.parametrize("step", but_first([2, 7, 11, 1, 3, 4, 5, 6, 8, 9, 10, 12], fast=3))
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


@pytest.mark.promise(Promise.RESUMED)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork, which saves starting Python five times")
def test_killed_at_random_moments_and_resumed_it_is_the_same(
    encoder: str, source: Path, finished: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("cases", 5)
    processes, moments = multiprocessing.get_context("fork"), np.random.default_rng(6)
    for _ in range(5):
        begun = processes.Process(target=run_with_its_own_lock, args=(encoder, source, tmp_path / "o"))
        begun.start()
        wait_for(tmp_path / "o" / "embeddings.json", begun.is_alive)
        time.sleep(float(moments.uniform(0, 0.3)))
        os.kill(begun.pid or 0, signal.SIGKILL)
        begun.join()
        assert begun.exitcode == -signal.SIGKILL or begun.exitcode == 0
    run(encoder, source, tmp_path / "o")
    assert contents(tmp_path / "o") == contents(finished)


def run_with_its_own_lock(*arguments: Any) -> None:
    """Bars of progress have a lock that forked processes share, and whoever is killed would keep it for ever.

    Each kind of bar may have been given it by itself, as ``thread_map`` gives it to that of ``datasets``.
    """
    lock, kinds = threading.RLock(), [tqdm]
    while kinds:
        kind = kinds.pop()
        kind.set_lock(lock)
        kinds += kind.__subclasses__()
    run(*arguments)


@pytest.mark.promise(Promise.RESUMED)
@pytest.mark.slow
def test_the_command_killed_ten_times_and_resumed_gives_the_same(
    encoder: str, source: Path, finished: Path, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    record_property("cases", 10)
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


@pytest.mark.promise(Promise.RESUMED)
@pytest.mark.slow
def test_several_processes_give_the_same(encoder: str, source: Path, finished: Path, tmp_path: Path) -> None:
    run(encoder, source, tmp_path / "o", devices=["cpu", "cpu"])
    assert contents(tmp_path / "o") == contents(finished)


@pytest.mark.promise(Promise.RESUMED)
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
