"""How much memory a process has taken, which each system counts in its own way."""

from __future__ import annotations

import sys

import psutil
import torch


def peak_memory() -> int:
    """The most memory that this process has held, in bytes: the GPU's where it works on one."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
