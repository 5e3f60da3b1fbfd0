"""Replace a folder by another: who opens it finds the old one or the new one, whenever the process is killed.

``.saving-NAME-xxxxxxxx/``, beside the folder
    A save that goes on, or was killed: ``new`` is being written, ``lock`` is held by who writes, and ``old`` is what
    stood there, on file systems that cannot exchange two folders in one step.
``.saving-xxxxxxxx/``, in the folder
    The same, where the folder itself cannot be moved: a mount point, the working directory, a parent that may not be
    written. Its entries are exchanged one by one, as ``steps.json`` says. A kill among these steps leaves a folder that
    is refused until :func:`settle` takes the rest of them, with which ``load`` and the next save begin.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from st_llm2vec.folder.exchange import exchange

logger = logging.getLogger(__name__)

PREFIX = ".saving-"
RANDOM = re.compile(r"[a-z0-9_]{8}")  # what tempfile appends
STEPS = "steps.json"
SECONDS_TO_WAIT = 60
LAST = ("modules.json", "config.json", "adapter_config.json")  # without the last two, nothing reads a folder as a model

Replaced = Callable[[str], bool]


@contextmanager
def replacing(path: Path, replaced: Replaced) -> Iterator[Path]:
    """Give an empty folder to write, and put it in the place of another when it is written.

    Args:
        path: The folder to replace; it may be missing.
        replaced: Whether an entry of the old folder, by its name, goes although the new one has none of that name. All
            others stay.

    Yields:
        The folder to write. If anything is raised, nothing has changed.

    Raises:
        OSError: If the path is a file, or may not be written.
    """
    path = path.resolve()
    if path.is_file():
        raise NotADirectoryError(f"{path} is a file; give a folder.")
    with staged(path) as staging:
        fresh = staging / "new"
        fresh.mkdir()
        yield fresh
        if not path.exists():
            os.rename(fresh, path)
        elif staging.parent == path:
            _write_steps(staging, path, replaced)
            _take_steps_or_none(staging, path)
        else:
            _replace_whole(staging, path, replaced)


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Give a file to write, and put it in the place of another when it is written.

    Args:
        path: The file to replace; it may be missing.

    Yields:
        The file to write, of the same name. If anything is raised, nothing has changed.

    Raises:
        OSError: If the path may not be written.
    """
    with staged(path) as staging:
        fresh = staging / path.name
        yield fresh
        os.replace(fresh, path)


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Give a hidden folder to write in, on the file system of a path, which is gone afterwards, or with the next save.

    Args:
        path: The file or folder that is being written.

    Yields:
        The hidden folder.

    Raises:
        OSError: If the path may not be written.
    """
    settle(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    staging, lock = _new_staging(path)
    try:
        yield staging
    finally:
        _clear(staging, path)
        lock.release()


def settle(path: Path) -> None:
    """Finish or clear away what killed saves of a folder left.

    Args:
        path: The folder; it may be missing.

    Raises:
        OSError: If a save was killed halfway and cannot be finished, since the folder may not be written.
    """
    path = path.resolve()
    for staging in [*_leftovers(path.parent, f"{PREFIX}{path.name}-"), *_leftovers(path, PREFIX)]:
        halfway = (staging / STEPS).is_file() or ((staging / "old").exists() and not path.exists())
        try:
            with FileLock(staging / "lock", timeout=SECONDS_TO_WAIT if halfway else 0):
                _finish(staging, path)
        except (Timeout, FileNotFoundError):  # somebody is writing there, or has just finished
            continue
        except (OSError, NotImplementedError) as error:
            if halfway:
                raise OSError(
                    f"A save to {path} was killed halfway, and what it left in {staging} cannot be finished here ({error}). "
                    "Load it once where the folder may be written."
                ) from error


def _leftovers(parent: Path, prefix: str) -> list[Path]:
    try:
        names = sorted(name for name in os.listdir(parent) if name.startswith(prefix))
    except OSError:
        return []
    return [parent / name for name in names if RANDOM.fullmatch(name.removeprefix(prefix))]


def _finish(staging: Path, path: Path) -> None:
    old, fresh = staging / "old", staging / "new"
    if (staging / STEPS).is_file():
        _take_steps(staging, path)
    elif old.is_dir() and fresh.is_dir():
        if not path.exists():
            os.rename(fresh, path)
        elif staging.parent == path and any(fresh.iterdir()):  # earlier versions kept no list of their steps
            logger.warning(
                "A save was killed: the earlier encoder is in %s, the later one in %s and %s.", old, fresh, path
            )
            return
    _clear(staging, path)


def _clear(staging: Path, path: Path) -> None:
    """Remove what is left of a save, unless an encoder is nowhere else."""
    if path.exists() and not (staging / STEPS).exists() or not (staging / "old").exists():
        shutil.rmtree(staging, ignore_errors=True)


def _new_staging(path: Path) -> tuple[Path, FileLock]:
    """A folder to write in, held by this process."""
    if not path.is_dir():
        return _held(path.parent, f"{PREFIX}{path.name}-")
    if not Path.cwd().is_relative_to(path):
        with suppress(PermissionError):
            staging, lock = _held(path.parent, f"{PREFIX}{path.name}-")
            if _can_be_moved(path, staging):
                return staging, lock
            shutil.rmtree(staging, ignore_errors=True)
            lock.release()
    return _held(path, PREFIX)


def _held(parent: Path, prefix: str) -> tuple[Path, FileLock]:
    while True:
        staging = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
        lock = FileLock(staging / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:  # somebody else has just taken it for a leftover
            continue
        except NotImplementedError:  # a file system without locks, where leftovers stay
            pass
        return staging, lock


def _can_be_moved(path: Path, staging: Path) -> bool:
    """Whether nothing but that there is a folder already keeps one from moving to the place of another."""
    try:
        os.rename(path, staging)
    except OSError as error:
        return error.errno in (errno.ENOTEMPTY, errno.EEXIST) or os.name == "nt"
    raise AssertionError(f"{path} took the place of {staging}, which holds a lock")


def _replace_whole(staging: Path, path: Path, replaced: Replaced) -> None:
    """Exchange the folders; what stays is linked into the new one before."""
    fresh, old = staging / "new", staging / "old"
    for name in os.listdir(path):
        if not replaced(name) and not os.path.lexists(fresh / name):
            _link_tree(path / name, fresh / name)
    shutil.copymode(path, fresh)
    if exchange(fresh, path):
        os.rename(fresh, old)
    else:
        os.rename(path, old)
        try:
            os.rename(fresh, path)
        except BaseException:
            os.rename(old, path)
            raise
    for name in os.listdir(old):  # what somebody has written there since
        if not replaced(name) and not os.path.lexists(path / name):
            os.rename(old / name, path / name)


def _link_tree(source: Path, target: Path) -> None:
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, copy_function=_link)
    else:
        _link(source, target)


def _link(source: str | Path, target: str | Path) -> None:
    """The same file at a second path; its copy, on file systems without links."""
    try:
        os.link(source, target, follow_symlinks=False)
    except (OSError, NotImplementedError) as error:
        if getattr(error, "errno", None) == errno.EXDEV:
            raise OSError(f"{source} is of another file system than the folder that it is in; move it out.") from error
        shutil.copy2(source, target, follow_symlinks=False)


def _write_steps(staging: Path, path: Path, replaced: Replaced) -> None:
    arriving = sorted(os.listdir(staging / "new"), key=lambda name: (name in LAST and LAST.index(name), name))
    leaving = [name for name in os.listdir(path) if name in arriving or replaced(name)]
    leaving.sort(key=lambda name: (name in LAST and -LAST.index(name) - 1, name))
    written = staging / f"{STEPS}.part"
    written.write_text(json.dumps({"leaving": leaving, "arriving": arriving}), encoding="utf-8")
    os.replace(written, staging / STEPS)


def _take_steps(staging: Path, path: Path) -> None:
    """Take the steps that have not been taken yet, whichever they are."""
    steps, old, fresh = _read_steps(staging), staging / "old", staging / "new"
    old.mkdir(exist_ok=True)
    for name in steps["leaving"]:
        is_new = name in steps["arriving"] and not os.path.lexists(fresh / name)
        if not is_new and os.path.lexists(path / name) and not os.path.lexists(old / name):
            os.replace(path / name, old / name)
    for name in steps["arriving"]:
        if os.path.lexists(fresh / name):
            os.replace(fresh / name, path / name)
    (staging / STEPS).unlink()


def _take_steps_or_none(staging: Path, path: Path) -> None:
    try:
        _take_steps(staging, path)
    except BaseException:
        steps, old, fresh = _read_steps(staging), staging / "old", staging / "new"
        for name in reversed(steps["arriving"]):
            if not os.path.lexists(fresh / name):
                os.replace(path / name, fresh / name)
        for name in reversed(steps["leaving"]):
            if os.path.lexists(old / name):
                os.replace(old / name, path / name)
        (staging / STEPS).unlink()
        raise


def _read_steps(staging: Path) -> dict[str, list[str]]:
    steps: dict[str, list[str]] = json.loads((staging / STEPS).read_text(encoding="utf-8"))
    return steps
