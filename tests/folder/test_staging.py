"""A folder is replaced whole: whenever a save is killed, the old encoder is there or the new one."""

from __future__ import annotations

import errno
import hashlib
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from st_llm2vec import convert, load
from st_llm2vec.folder.encoder import TextEncoder
from st_llm2vec.folder.staging import replacing, settle
from tests.promises import Promise

from ..conftest import TEXTS, but_first, cosine_distance
from ..disks import small_disk
from ..kills import killed_at

MINE = {"README.md": "# Mine", "notes/2024/precious.csv": "precious", ".git/HEAD": "ref: refs/heads/main"}
pytestmark = pytest.mark.promise(Promise.SAVED_WHOLE)


def contents(folder: Path) -> dict[str, str]:
    """Every file with its content's sha256."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def leftovers(*folders: Path) -> list[Path]:
    return [one for folder in folders for one in folder.glob(".saving-*")]


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def encoders(decoder: str) -> dict[str, TextEncoder]:
    """Two whose files differ in names too, and whose vectors differ."""
    return {"old": convert(decoder, "sgpt"), "new": convert(decoder, "prompteol", max_length=200)}


@pytest.fixture(scope="module")
def saved(encoders: dict[str, TextEncoder], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The two on the disk, the old one among files that are somebody's own."""
    folders = {}
    for name, encoder in encoders.items():
        folders[name] = tmp_path_factory.mktemp("saved") / name
        encoder.save_pretrained(str(folders[name]))
    for name, text in MINE.items():
        (folders["old"] / name).parent.mkdir(parents=True, exist_ok=True)
        (folders["old"] / name).write_text(text)
    return folders


@pytest.fixture(scope="module")
def reads(encoders: dict[str, TextEncoder]) -> Callable[[Path, Callable], str]:
    """Which of the two a folder is, by its vectors; a folder of the same files is read once."""
    expected = {name: encoder.encode(TEXTS) for name, encoder in encoders.items()}
    assert cosine_distance(expected["old"], expected["new"]) > 1e-3
    known: dict[tuple, str] = {}

    def read(folder: Path, loader: Callable) -> str:
        key = (loader, tuple(contents(folder).items()))
        if key not in known:
            vectors = loader(str(folder)).encode(TEXTS)
            found = [name for name, meant in expected.items() if cosine_distance(vectors, meant) < 1e-6]
            assert len(found) == 1, "a mixture"
            known[key] = found[0]
        return known[key]

    return read


def is_whole(folder: Path) -> None:
    assert {name: (folder / name).read_text() for name in MINE} == MINE
    assert leftovers(folder, folder.parent) == []


@pytest.mark.slow  # a save is forked and killed at each of its hundred changes of the disk
@pytest.mark.parametrize("way", ["exchange", "rename", "entries"])
def test_killed_at_any_step_it_is_the_old_or_the_new_one(
    encoders: dict[str, TextEncoder],
    saved: dict[str, Path],
    reads: Callable[[Path, Callable], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    way: str,
    record_property: Callable[[str, object], None],
) -> None:
    steps = kill_at_each_step(encoders["new"], saved["old"], reads, tmp_path, monkeypatch, way, range(1000))
    record_property("cases", steps)


def kill_at_each_step(encoder, old, reads, tmp_path, monkeypatch, way: str, steps: range) -> int:
    if way == "rename":
        monkeypatch.setattr("st_llm2vec.folder.staging.exchange", lambda first, second: False)
    found = []
    for step in steps:
        target = tmp_path / str(step) / "target"
        shutil.copytree(old, target)
        with inside(target if way == "entries" else tmp_path):
            killed = killed_at(step, lambda target=target: encoder.save_pretrained(str(target)))
        if way == "exchange":
            assert reads(target, SentenceTransformer) in ("old", "new")
        elif killed:
            refuses_or_reads(target, reads)
        found.append(reads_after_settling(target, reads))
        is_whole(target)
        shutil.rmtree(target.parent)
        if not killed:
            break
    assert found[0] == "old" and found[-1] == "new" and len(found) > 20
    assert found == sorted(found, reverse=True), "once it is the new one, it stays the new one"
    return len(found)


@pytest.mark.parametrize("way", but_first(["exchange", "rename", "entries"]))
def test_killed_at_any_step_it_is_one_of_two_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str, record_property: Callable[[str, object], None]
) -> None:
    """The same with files of a line, for which forks take the time: five seconds."""
    if way == "rename":
        monkeypatch.setattr("st_llm2vec.folder.staging.exchange", lambda first, second: False)
    mine, old = {"notes/mine": "mine"}, {"config.json": "old", "modules.json": "old", "model": "old", "1_Old/a": "old"}
    new = {"config.json": "new", "modules.json": "new", "model": "new", "2_New/a": "new"}
    states = []
    for step in range(1000):
        target = tmp_path / str(step) / "target"
        write(target, {**old, **mine})
        with inside(target if way == "entries" else tmp_path):
            killed = killed_at(step, lambda target=target: save(target, new))
        if way == "exchange":
            assert texts(target) in ({**old, **mine}, {**new, **mine})
        elif way == "entries" and not (target / "config.json").exists():
            states.append("refused")
        settle(target)
        states.append("new" if texts(target) == {**new, **mine} else "old")
        assert texts(target) in ({**old, **mine}, {**new, **mine})
        assert leftovers(target, target.parent) == []
        if not killed:
            break
    record_property("cases", step)
    assert states[0] == "old" and states[-1] == "new" and states.count("old") > 5
    assert "refused" in states or way != "entries"


@pytest.mark.parametrize("way", ["exchange", "rename", "entries"])
def test_a_step_that_fails_is_undone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    old = {"config.json": "old", "modules.json": "old", "1_Old/a": "old", "notes/mine": "mine"}
    target, (rename, replace) = tmp_path / "target", (os.rename, os.replace)
    write(target, old)

    def failing(at: int, move: Callable) -> Callable:
        count = iter(range(100))

        def moved(source: Path, destination: Path) -> None:
            if str(source) != str(target) or destination.name == "old":  # the question whether the folder can be moved
                if next(count) == at:
                    raise OSError("disk gone")
            move(source, destination)

        return moved

    if way == "rename":
        monkeypatch.setattr("st_llm2vec.folder.staging.exchange", lambda first, second: False)
    for at in range({"exchange": 1, "rename": 2, "entries": 7}[way]):
        if way == "exchange":
            monkeypatch.setattr("st_llm2vec.folder.staging.exchange", failing(at, replace))
        else:
            monkeypatch.setattr(os, "rename", failing(at, rename))
            monkeypatch.setattr(os, "replace", failing(at, replace))
        with pytest.raises(OSError, match="disk gone"), inside(target if way == "entries" else tmp_path):
            save(target, {"config.json": "new", "modules.json": "new", "2_New/a": "new"})
        assert texts(target) == old
        assert leftovers(tmp_path, target) == []
    monkeypatch.undo()
    save(target, {"config.json": "new"})
    assert texts(target)["config.json"] == "new"


def save(target: Path, new: dict[str, str]) -> None:
    with replacing(target, {"1_Old"}.__contains__) as fresh:
        write(fresh, new)


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def texts(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): file.read_text()
        for file in folder.rglob("*")
        if file.is_file() and ".saving-" not in str(file)
    }


def refuses_or_reads(target: Path, reads: Callable[[Path, Callable], str]) -> None:
    """Where a folder cannot be exchanged in one step, plain Sentence Transformers may refuse, and never reads a mixture."""
    try:
        assert reads(target, SentenceTransformer) in ("old", "new")
    except (OSError, ValueError):
        return


def reads_after_settling(target: Path, reads: Callable[[Path, Callable], str]) -> str:
    settle(target)
    assert reads(target, SentenceTransformer) == reads(target, load)
    return reads(target, load)


def test_load_settles_what_a_kill_left(saved: dict[str, Path], reads, tmp_path: Path) -> None:
    target, staging = tmp_path / "target", tmp_path / ".saving-target-0a1b2c3d"
    shutil.copytree(saved["old"], staging / "old")
    shutil.copytree(saved["new"], staging / "new")
    vectors = load(target).encode(TEXTS)
    assert reads(target, load) == "new" and np.isfinite(vectors).all()
    assert not leftovers(tmp_path)


def test_leftovers_of_others_stay(saved: dict[str, Path], tmp_path: Path) -> None:
    target = tmp_path / "a"
    shutil.copytree(saved["new"], target)
    others = [tmp_path / ".saving-a-b-0a1b2c3d", tmp_path / ".saving-b-0a1b2c3d", tmp_path / ".saving-a-notes"]
    for other in others:
        other.mkdir()
    (tmp_path / ".saving-a-0a1b2c3d").mkdir()
    settle(target)
    assert sorted(leftovers(tmp_path)) == sorted(others)


def test_a_save_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with replacing(target, lambda name: False) as fresh:
        (fresh / "new").write_text("new")
        child = os.fork()
        if not child:
            settle(target)
            os._exit(0)
        os.waitpid(child, 0)
    assert (target / "new").read_text() == "new"


def test_two_processes_save_to_one_folder(encoders: dict[str, TextEncoder], reads, tmp_path: Path) -> None:
    target = tmp_path / "target"
    for encoder in encoders.values():
        for name in ("old", "new"):
            start = multiprocessing.get_context("fork").Process
            processes = [start(target=one.save_pretrained, args=[str(target)]) for one in (encoder, encoders[name])]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
            assert [process.exitcode for process in processes] == [0, 0]
            assert reads(target, load) == reads(target, SentenceTransformer)
            assert not leftovers(tmp_path, target)


def test_what_is_written_meanwhile_stays(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.mkdir()
    with replacing(target, lambda name: False) as fresh:
        (fresh / "new").write_text("new")
        (target / "log").write_text("late")
    assert {file.name for file in target.iterdir()} == {"new", "log"}


def test_links_lead_where_they_led(saved: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    shutil.copytree(saved["old"], tmp_path / "disk" / "real")
    (tmp_path / "disk" / "real" / "elsewhere").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "real")
    with replacing(tmp_path / "link", lambda name: name not in ("elsewhere", "notes")) as fresh:
        (fresh / "new").write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "link" / "new").read_text() == "new"
    assert (tmp_path / "disk" / "real" / "elsewhere").readlink() == tmp_path
    assert (tmp_path / "disk" / "real" / "notes/2024/precious.csv").read_text() == "precious"


def test_the_working_directory_stays_what_it_was(encoders: dict[str, TextEncoder], reads, tmp_path: Path) -> None:
    encoders["old"].save_pretrained(str(tmp_path / "target"))
    with inside(tmp_path / "target"):
        encoders["new"].save_pretrained(".")
        assert Path("modules.json").is_file()
    assert reads(tmp_path / "target", load) == "new"
    assert not leftovers(tmp_path, tmp_path / "target")


@pytest.mark.parametrize("size", ["4k", "200k", "2m"])
def test_a_full_disk(encoders: dict[str, TextEncoder], tmp_path: Path, size: str) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        with pytest.raises(OSError, match="There is no space left for .*disk/new .*make space"):
            encoders["new"].save_pretrained(str(disk / "new"))
        assert list(disk.iterdir()) == []


def test_a_disk_with_room_for_one(encoders: dict[str, TextEncoder], reads, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "8m") as disk:
        encoders["old"].save_pretrained(str(disk / "target"))
        before = contents(disk)
        with pytest.raises(OSError, match="There is no space left"):
            encoders["new"].save_pretrained(str(disk / "target"))
        assert contents(disk) == before
        assert reads(disk / "target", load) == "old"


def test_a_mount_point_is_written_too(encoders: dict[str, TextEncoder], reads, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "40m") as disk:
        for name in ("old", "new"):
            encoders[name].save_pretrained(str(disk))
            assert reads(disk, load) == reads(disk, SentenceTransformer) == name
            assert not leftovers(disk, tmp_path)


def test_no_space_by_the_name_of_the_error(
    encoders: dict[str, TextEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(type(encoders["new"][1]), "save", full)
    with pytest.raises(OSError, match="There is no space left for .*quota"):
        encoders["new"].save_pretrained(str(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_may_not_be_written(
    encoders: dict[str, TextEncoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:  # whom no right is denied

        def denied(*arguments: object, **options: object) -> None:
            raise PermissionError(errno.EROFS, os.strerror(errno.EROFS), str(tmp_path))

        monkeypatch.setattr("tempfile.mkdtemp", denied)
    else:
        tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match="may not be written .*give another path"):
        encoders["new"].save_pretrained(str(tmp_path / "new"))
    monkeypatch.undo()
    tmp_path.chmod(0o700)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file; give a folder"):
        encoders["new"].save_pretrained(str(tmp_path / "file"))
    assert (tmp_path / "file").read_text() == "mine"
