"""A run that is killed and started again ends with the weights of one that was not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("interrupted_run.py")


@pytest.mark.parametrize(
    ("kind", "moments"),
    [
        ("mntp", ["5", "finishing"]),
        pytest.param("mntp", ["1", "saving6"], marks=pytest.mark.slow),
        pytest.param("simcse", ["3", "saving4"], marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_continues_exactly(tmp_path: Path, texts_file: str, kind: str, moments: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(WORKER), kind, str(tmp_path), texts_file, *moments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    finished, killed = [0, True], [-signal.SIGKILL, False]
    assert json.loads(done.stdout.splitlines()[-1]) == [finished, *[killed] * len(moments), finished]
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert weights[0] == weights[1]
