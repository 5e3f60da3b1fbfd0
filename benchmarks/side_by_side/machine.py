"""What a measurement was made on and with, and by which command."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "transformers", "sentence-transformers", "peft")
CPU_INFO = Path("/proc/cpuinfo")


def describe_machine(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Processor, threads, how busy the machine was, and versions."""
    found: dict[str, Any] = {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in PACKAGES},
    }
    if device != "cpu":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def processor() -> str:
    """The processor's name, with the instructions that matter for bfloat16."""
    if not CPU_INFO.exists():
        return platform.processor() or platform.machine()
    fields = dict(
        (part.strip() for part in line.split(":", 1)) for line in CPU_INFO.read_text().splitlines() if ":" in line
    )
    flags = {"avx512_bf16", "amx_bf16", "avx512f"} & set(fields.get("flags", "").split())
    name = fields.get("model name", platform.machine())
    return f"{name} (family {fields['cpu family']}; {', '.join(sorted(flags))})" if flags else name


def sentence(machine: dict[str, Any]) -> str:
    """The machine as the pages tell it."""
    versions = ", ".join(f"{name} {machine[name]}" for name in PACKAGES)
    gpu = f"{machine['gpu']}, " if "gpu" in machine else ""
    load = f"; load before the run {machine['load_before']}" if "load_before" in machine else ""
    return (
        f"{gpu}{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads{load}; "
        f"Python {machine['python']}, {versions}."
    )


def command(module: str, paths: Sequence[str], arguments: Sequence[str] | None = None) -> str:
    """The command of this run, folders left unnamed.

    Args:
        module: What ran.
        paths: Options whose values are folders.
        arguments: The command line; this process's if not given.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    for at, word in enumerate(given):
        name, equals, _ = word.partition("=")
        if name in paths and equals:
            given[at] = f"{name}=DIR"
        elif word in paths and at + 1 < len(given):
            given[at + 1] = "DIR"
    return " ".join(["python -m", module, *given])
