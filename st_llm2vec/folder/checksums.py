"""Checksums of a folder's weights, tokenizer and settings, which a manifest keeps: one flipped bit, and they differ."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHUNK = 2**24
COVERED = re.compile(r"(\d+_\w+/)?(?!st_llm2vec\.json)[\w.-]+\.(safetensors|json|jinja|model)")
READ = re.compile(r"(\d+_\w+/)?((model|adapter_model|mntp_head)[\w.-]*\.safetensors|tokenizer\.json)")


def sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """The sha256 of every file of weights, tokenizer and settings, by its path in a folder that holds an encoder alone."""
    return _digests(folder, [name for name in _names(folder) if COVERED.fullmatch(name)])


def verify_checksums(folder: Path, expected: Mapping[str, str], source: str | Path) -> None:
    """Raise unless a folder's weights, tokenizer and settings are, to the bit, those that were saved.

    Args:
        folder: The encoder's folder.
        expected: The sha256 of each file, by its path; from the manifest.
        source: The folder's name, for the message.

    Raises:
        ValueError: If there are no checksums, a file differs or is missing, or one is there that was not saved.
    """
    if not expected:
        raise ValueError(
            f"{source} has no checksums to verify it by: an earlier version saved it, or plain Sentence Transformers. Load it "
            "without verify and save it again; its folder then has them."
        )
    missing = sorted(name for name in expected if not (folder / name).is_file())
    if missing:
        raise ValueError(f"{source} lacks {missing[0]}, which was saved with it; copy or download it again.")
    strangers = sorted(name for name in _names(folder) if READ.fullmatch(name) and name not in expected)
    if strangers:
        raise ValueError(
            f"{source} holds {strangers[0]}, which was not saved with it and may be read in the place of what was. Remove it, "
            "or save the encoder again."
        )
    found = _digests(folder, sorted(expected))
    changed = [name for name, digest in found.items() if digest != expected[name]]
    if changed:
        raise ValueError(
            f"{changed[0]} of {source} is not the file that was saved: its sha256 is {found[changed[0]][:16]}…, and "
            f"st_llm2vec.json says {expected[changed[0]][:16]}…. It was damaged or changed since; copy or download it again. If "
            "you changed it on purpose, load it without verify and save the encoder again."
        )


def _digests(folder: Path, names: list[str]) -> dict[str, str]:
    """Shards are read at the same time; hashing leaves Python's lock to others."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(names, pool.map(sha256, [folder / name for name in names]), strict=True))


def _names(folder: Path) -> Iterator[str]:
    for file in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        if file.is_file():
            yield file.relative_to(folder).as_posix()
