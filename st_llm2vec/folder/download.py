"""Download a repository's files, and refuse large ones that arrived otherwise than the Hub has them."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from st_llm2vec.folder.checksums import sha256

SHA256 = re.compile(r"[0-9a-f]{64}")


def download(name: str, **options: Any) -> Path:
    """Download what is not in the cache yet, as ``snapshot_download`` does, and check what has just come.

    Over plain HTTP the client compares sizes only. The cache names large files by the sha256 that the Hub gave for
    them, so what was downloaded in this call can be checked; what was there before is not read again.

    Args:
        name: The repository.
        **options: As for ``snapshot_download``.

    Returns:
        The folder.

    Raises:
        ValueError: If a file is corrupted. It is removed, so that the next call downloads it again.
        Exception: What the client raises; see :func:`hub_errors`.
    """
    started = time.time() - 2  # File systems keep times in steps of up to two seconds.
    folder = Path(snapshot_download(name, **options))
    for file in folder.rglob("*.safetensors"):
        blob = file.resolve()
        if SHA256.fullmatch(blob.name) and blob.stat().st_mtime >= started and sha256(blob) != blob.name:
            for path in (blob, file):
                path.unlink(missing_ok=True)
            raise ValueError(
                f"{file.relative_to(folder)} of {name} was corrupted on the way: its sha256 is not the one that the Hub "
                "has. It was removed from the cache; download it again."
            )
    return folder


@contextmanager
def hub_errors(name: str | Path) -> Iterator[None]:
    """Say in a sentence why something named so is neither a folder here nor could be downloaded.

    Args:
        name: What was taken for a repository's name, since there is no such folder.

    Raises:
        EntryNotFoundError: If the repository does not hold the file, as the client raises it.
        ValueError: If anything else is wrong: the name, the token, the connection.
    """
    try:
        yield
    except HFValidationError as error:
        raise ValueError(f"There is no folder {name}, and it is no repository's name either.") from error
    except GatedRepoError as error:
        raise ValueError(
            f"{name} is gated: accept its terms on its page, then pass your token or run `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise ValueError(
            f"There is neither a folder {name} nor, for this token, a repository of that name on the Hub."
        ) from error
    except LocalEntryNotFoundError as error:
        raise ValueError(
            f"There is no folder {name}, and as a repository it is not in the cache and could not be downloaded: {error}"
        ) from error
    except (EntryNotFoundError, ValueError):
        raise
    except Exception as error:  # The HTTP library's own errors differ between versions of huggingface_hub.
        raise ValueError(f"{name} could not be downloaded from the Hub ({type(error).__name__}: {error}).") from error
