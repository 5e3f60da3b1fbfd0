"""vLLM as its own OpenAI-compatible server, from the environment that `make test-serving` builds for it."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.request import urlopen

PLACE = "ST_LLM2VEC_VLLM"
"""The environment variable that names the environment's folder."""
SECONDS_TO_START = 600
# One CPU has neither the memory that vLLM takes for keys and values nor the time to compile each model.
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}


class DoesNotStart(RuntimeError):
    """The server ended before it answered; the message is the end of its log."""


def find_vllm() -> Path | None:
    """The Python of the environment that ``ST_LLM2VEC_VLLM`` names; ``None`` where vLLM is not in it."""
    place = Path(os.environ.get(PLACE, "")).absolute() / "bin"
    return place / "python" if PLACE in os.environ and (place / "vllm").is_file() else None


@contextmanager
def vllm_server(command: str, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run ``vllm serve ...`` until the block ends.

    Args:
        command: The command, as a verdict prints it.
        log: A file for what the server prints.
        environment: Variables in the place of this process's.

    Yields:
        The server's URL for OpenAI's clients.

    Raises:
        DoesNotStart: If the server ends.
        TimeoutError: If it does not answer in time.
    """
    python = find_vllm()
    assert python is not None, f"{PLACE} names no environment with vLLM"
    _, _, model, *options = shlex.split(command)
    port = free_port()
    further = ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    own = {key: value for key, value in (environment or os.environ).items() if key != "PYTHONPATH"}
    # The script `vllm` looks for the distribution of that name, which the CPU build, vllm-cpu, is not.
    served = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", model, *options, *further]
    with log.open("w", encoding="utf-8") as printed:
        server = subprocess.Popen(
            served,
            env={"HF_HUB_OFFLINE": "1", **own, **SMALL},
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(server, f"{url}/health", log)
        yield f"{url}/v1"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)  # its engine too, which is a process of its own
        server.wait(30)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(server: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    said = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    if server.poll() is None:
        raise TimeoutError(f"vLLM has not answered within {SECONDS_TO_START} seconds: {said}")
    raise DoesNotStart(said)
