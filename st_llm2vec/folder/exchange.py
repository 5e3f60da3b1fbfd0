"""Exchange two folders in one step, which Linux and macOS offer and Python does not."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

AT_WORKING_DIRECTORY = -100  # AT_FDCWD of fcntl.h on Linux
EXCHANGE = 2  # RENAME_EXCHANGE of renameat2(2) on Linux, RENAME_SWAP of renamex_np(2) on macOS
NOT_OFFERED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP}


def exchange(first: Path, second: Path) -> bool:
    """Let two folders of one file system change places, so that nobody ever sees either path without a folder.

    Args:
        first: A folder.
        second: Another.

    Returns:
        Whether they did; false where the system or the file system does not offer it.

    Raises:
        OSError: If it is offered and failed; then both are where they were.
    """
    paths = os.fsencode(first), os.fsencode(second)
    try:
        library = ctypes.CDLL(None, use_errno=True)
        if sys.platform == "darwin":
            failed = library.renamex_np(paths[0], paths[1], EXCHANGE)
        else:
            failed = library.renameat2(AT_WORKING_DIRECTORY, paths[0], AT_WORKING_DIRECTORY, paths[1], EXCHANGE)
    except (AttributeError, OSError, TypeError):  # Windows, and C libraries without the call
        return False
    code = ctypes.get_errno() if failed else 0
    if code and code not in NOT_OFFERED:
        raise OSError(code, os.strerror(code), str(second))
    return not code
