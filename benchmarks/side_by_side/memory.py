"""Peak memory above what a loaded model takes: of the process on a CPU (Linux), of the allocator on a GPU."""

from __future__ import annotations

import ctypes
from pathlib import Path

MIB = 2**20
STATUS = Path("/proc/self/status")


class Memory:
    """The memory of this process, from when a model was loaded and had read its first text."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.loaded = self._now()

    def start(self) -> None:
        """Forget earlier peaks, and give back what is free but kept."""
        if self.device == "cpu":
            _trim()
            if STATUS.exists():
                Path("/proc/self/clear_refs").write_text("5")
        else:
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.loaded = self._now()  # others may have been loaded into this process since

    def growth(self) -> float | None:
        """MiB by which the peak since ``start`` is above the loaded model; ``None`` where the system does not tell."""
        if self.device == "cpu":
            peak = _status("VmHWM")
        else:
            import torch

            peak = torch.cuda.max_memory_allocated() / MIB
        return None if peak is None or self.loaded is None else peak - self.loaded

    def _now(self) -> float | None:
        if self.device == "cpu":
            _trim()
            return _status("VmRSS")
        import torch

        return torch.cuda.memory_allocated() / MIB


def _trim() -> None:
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library: nothing to give back


def _status(field: str) -> float | None:
    if not STATUS.exists():
        return None
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
