"""Is everything in a folder a plain file of its own? A pipe would hang who reads it, and a link leads anywhere."""

from __future__ import annotations

import stat
from pathlib import Path


def require_plain_files(folder: Path, source: str | Path) -> None:
    """Raise if a folder holds a pipe, a socket, a device, or a link that leads out of it.

    Links may lead to where the Hub's cache keeps what its snapshots link to.

    Args:
        folder: A decoder's or an encoder's folder.
        source: Its name, for the message.

    Raises:
        ValueError: If it does; the message names the file.
    """
    home = folder.resolve()
    homes = (home, home.parent.parent / "blobs")
    for file in sorted((*folder.glob("*"), *folder.glob("[0-9]*_*/*"))):
        name = file.relative_to(folder)
        try:
            mode = file.stat().st_mode
        except OSError as error:
            raise ValueError(
                f"{name} of {source} cannot be read ({error.strerror}); save or download it again."
            ) from error
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise ValueError(
                f"{name} of {source} is no file but a pipe, a socket or a device, and is not read; remove it."
            )
        if file.is_symlink() and not any(file.resolve().is_relative_to(one) for one in homes):
            raise ValueError(
                f"{name} of {source} is a link that leads out of the folder, to {file.resolve()}, and is not followed. Put a "
                "copy of the file, or a hard link, in its place."
            )
