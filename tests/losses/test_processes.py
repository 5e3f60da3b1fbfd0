"""Two processes train as one would on the same global batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.promises import Promise

WORKER = Path(__file__).with_name("two_processes.py")


def launch(script: str, *arguments: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--multi_gpu",
        "--num_processes",
        "2",
        "--num_machines",
        "1",
    ]
    command += [
        "--mixed_precision",
        "no",
        "--dynamo_backend",
        "no",
        "--main_process_port",
        str(port),
        script,
        *arguments,
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr[-3000:]


@pytest.mark.promise(Promise.HOST_TRAINS)
@pytest.mark.slow
def test_losses_and_gradients_of_two_processes_equal_those_of_one(tmp_path: Path) -> None:
    launch(str(WORKER), str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    assert len(found) == 9
    for case, distance in found.items():
        assert distance["norm"] > 1e-3, case
        assert distance["loss"] < 1e-5, case
        assert distance["gradient"] < 1e-4, case
