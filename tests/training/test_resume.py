"""A run that is killed and started again ends with the weights of one that was not."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..promises import Promise

WORKER = Path(__file__).with_name("interrupted_run.py")


@pytest.mark.slow  # `test_weights.py` and `cli/test_interrupts.py` continue runs in this process
@pytest.mark.parametrize(
    ("kind", "moments"),
    [
        ("mntp", ["5", "finishing"]),
        ("mntp", ["1", "saving6"]),
        ("simcse", ["3", "saving4"]),
        ("distillation", ["3", "saving4"]),
    ],
)
def test_a_killed_run_continues_exactly(tmp_path: Path, texts_file: str, kind: str, moments: list[str]) -> None:
    ends = worked(kind, str(tmp_path), texts_file, *moments)
    finished, killed = [0, True], [-signal.SIGKILL, False]
    assert ends == [finished, *[killed] * len(moments), finished]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]


@pytest.mark.slow
@pytest.mark.promise(Promise.RESUMED)
@pytest.mark.parametrize("kind", ["mntp", "simcse"])
def test_a_run_killed_at_any_change_of_the_disk_ends_as_a_whole_one(
    tmp_path: Path, texts_file: str, kind: str, record_property: Any
) -> None:
    kills, finished = worked("often", kind, str(tmp_path), texts_file, "25", timeout=3000)
    assert kills >= 25 and finished >= 1
    for number in range(finished):
        assert trained(tmp_path / f"killed{number}") == trained(tmp_path / "whole")
    assert not [one.name for one in tmp_path.iterdir() if one.name.startswith(".")]
    record_property("cases", kills)


def worked(*arguments: str, timeout: int = 300) -> Any:
    """What the worker writes in the end."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(WORKER), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def trained(folder: Path) -> dict[str, bytes]:
    """All files of an encoder, but for checkpoints, the report, and the card, whose losses are those of the last process.

    The manifest is compared without the time that it took.
    """
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    passing = ("checkpoints/", "README.md", "training_")
    kept = {name: one for name, one in files.items() if not name.startswith(passing) or name == "training_run.json"}
    kept["st_llm2vec.json"] = re.sub(rb'"took": {[^}]*}', b"", kept["st_llm2vec.json"])
    return {name: one.replace(str(folder).encode(), b"FOLDER") for name, one in kept.items()}
