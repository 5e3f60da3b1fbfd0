"""Small file systems that tests fill."""

from __future__ import annotations

import gc
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of so many bytes, where mounting is permitted."""
    folder.mkdir()
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    except OSError:
        pytest.skip("file systems are not mounted by a command here")
    if made.returncode:
        pytest.skip("mounting a file system is not permitted here")
    try:
        yield folder
    finally:
        gc.collect()  # encoders that were read map their files
        subprocess.run(["umount", folder], check=True)
