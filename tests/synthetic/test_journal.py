"""What is answered is on the disk, and nothing else is taken for an answer."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from st_llm2vec.synthetic.journal import Answer, Journal

ANSWERS = {str(number): Answer(f"answer {number} ü", "stop", {"input": number}) for number in range(5)}


def written(folder: Path) -> Path:
    with Journal(folder).held() as journal:
        for identity, answer in ANSWERS.items():
            journal.write(identity, {"group": "sts"}, answer)
    return folder / "requests.jsonl"


def test_answers_are_kept(tmp_path: Path) -> None:
    written(tmp_path / "out")
    with Journal(tmp_path / "out").held() as journal:
        assert {one: journal.answer(one) for one in ANSWERS} == ANSWERS and "5" not in journal


def test_at_any_byte_what_was_written_to_its_end_is_kept(tmp_path: Path) -> None:
    file = written(tmp_path / "out")
    whole = file.read_bytes()
    for size in range(0, len(whole), 7):
        file.write_bytes(whole[:size])
        with Journal(tmp_path / "out").held() as journal:
            assert len(journal) == whole[:size].count(b"\n")
            journal.write("again", {}, Answer("once more"))
            assert journal.answer("again").text == "once more"
        with Journal(tmp_path / "out").held() as journal:
            assert len(journal) == whole[:size].count(b"\n") + 1


def test_a_disk_that_fills_up_leaves_no_half_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path / "out")
    before = file.read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    with Journal(tmp_path / "out").held() as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left"):
                journal.write("more", {}, Answer("text"))
        assert "more" not in journal and file.read_bytes() == before
        journal.write("more", {}, Answer("text"))
        assert journal.answer("more").text == "text"


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        Journal(tmp_path / "file")
    with pytest.raises(ValueError, match="holds file and no requests.jsonl"):
        Journal(tmp_path)
    file = written(tmp_path / "out")
    with Journal(tmp_path / "out").held(), pytest.raises(ValueError, match="Another process"):
        with Journal(tmp_path / "out").held():
            pass
    file.write_bytes(file.read_bytes().replace(b"{", b"[", 1))
    with pytest.raises(ValueError, match="line 1: this is no answer"), Journal(tmp_path / "out").held():
        pass
