"""A run that is killed and started again ends with the weights of one that was not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("interrupted_run.py")


def run(kind: str, output: Path, texts: str, moment: str = "never") -> int:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(WORKER), kind, str(output), texts, moment]
    return subprocess.run(command, env=environment, capture_output=True, timeout=300, check=False).returncode


@pytest.mark.parametrize(
    ("kind", "moments"), [("mntp", ["1", "5", "saving6", "finishing"]), ("simcse", ["3", "saving4"])]
)
def test_a_killed_run_continues_exactly(tmp_path: Path, texts_file: str, kind: str, moments: list[str]) -> None:
    assert run(kind, tmp_path / "whole", texts_file) == 0
    for moment in moments:
        assert run(kind, tmp_path / "killed", texts_file, moment) == -signal.SIGKILL
        assert not (tmp_path / "killed/modules.json").exists()
    assert run(kind, tmp_path / "killed", texts_file) == 0
    whole, killed = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "killed"))
    assert whole == killed
