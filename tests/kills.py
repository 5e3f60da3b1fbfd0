"""Processes that die at a moment of a test's choice."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

import pytest

if not hasattr(os, "fork"):
    pytest.skip("processes are forked and killed, which Windows cannot", allow_module_level=True)

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "ctypes.dlsym"}


def killed_at(step: int, work: Callable[[], object], inside: str = "") -> bool:
    """Do the work in a process that is killed at its n-th change of the file system; whether it was killed at all.

    Args:
        step: How many changes go well.
        work: What is done.
        inside: Changes of paths that hold this are counted; all if it is empty.
    """
    child = os.fork()
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert code in (0, -signal.SIGKILL)
        return code != 0
    count = iter(range(step))

    def kill(event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        if (event in CHANGES or writes) and inside in str(arguments) and next(count, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(kill)
        work()
        os._exit(0)
    finally:
        os._exit(1)
