"""What a disk refuses, in a sentence: each library has an error of its own for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Say in a sentence that there is no space or no right to write; other errors stay.

    Args:
        path: What is written, all or nothing.

    Raises:
        OSError: If the disk is full.
        PermissionError: If the path may not be written.
    """
    try:
        yield
    except Exception as error:
        code = _code(error)
        if code in NO_SPACE:
            raise OSError(
                f"There is no space left for {path} ({os.strerror(code)}). What was there is as it was; make space, or give "
                "a path on another disk."
            ) from error
        if code in NO_RIGHT and isinstance(error, OSError):
            where = f"{error.filename}: " if error.filename else ""
            raise PermissionError(
                f"{path} may not be written ({where}{os.strerror(code)}). What was there is as it was; give another path, or "
                "the right to write this one."
            ) from error
        raise


def _code(error: Exception) -> int:
    """The error's number; libraries in Rust say it in their message only."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    return next((code for code in NO_SPACE if f"(os error {code})" in str(error)), 0)
