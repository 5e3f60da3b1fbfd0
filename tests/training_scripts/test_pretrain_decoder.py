"""The script that pretrains the decoder in the box, on a few lines."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
from safetensors.torch import load_file

from st_llm2vec import decoder_path

SCRIPT = Path(__file__).parents[2] / "training_scripts" / "pretrain_decoder.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("pretrain_decoder", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "text"
    folder.mkdir()
    for name in ("novels_paragraphs", "wikisplit_sentences", "wikitext2_valid_test_paragraphs"):
        lines = [
            f"The {i}th clock in the hall struck {i % 12} , and nobody seemed to notice . " * 40 for i in range(60)
        ]
        (folder / f"{name}.txt").write_text("\n".join(lines))
    return folder


def run(script: ModuleType, monkeypatch: pytest.MonkeyPatch, data: Path, work: Path, output: Path, *more: str) -> None:
    arguments = ["--data", data, "--work", work, "--output", output, "--vocab-size", "400", "--batch", "1"]
    arguments += ["--steps", "4", "--save-every", "2", *more]
    monkeypatch.setattr(sys, "argv", ["pretrain_decoder.py", *map(str, arguments)])
    script.main()


@pytest.mark.slow
def test_a_run_that_is_interrupted_ends_with_the_same_weights(
    script: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(script, monkeypatch, data, tmp_path / "whole", tmp_path / "a")
    save, saves = script.save_atomically, []

    def interrupted(state: dict, path: Path) -> None:
        save(state, path)
        saves.append(state["step"])
        if len(saves) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(script, "save_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(script, monkeypatch, data, tmp_path / "parts", tmp_path / "b")
    run(script, monkeypatch, data, tmp_path / "parts", tmp_path / "b")
    assert saves == [2, 4]
    whole, parts = load_file(tmp_path / "a/model.safetensors"), load_file(tmp_path / "b/model.safetensors")
    assert all(whole[name].equal(parts[name]) for name in whole)
    with pytest.raises(SystemExit, match="belongs to a run of 4 steps"):
        run(script, monkeypatch, data, tmp_path / "parts", tmp_path / "b", "--steps", "6")


def test_detokenized_wikipedia_reads_like_prose(script: ModuleType) -> None:
    line = "Mr. <unk> said it 's well @-@ known ( or not ) ; 1 @,@ 200 of them did n't ."
    assert script.detokenize(line) == "Mr. said it's well-known (or not); 1,200 of them didn't."


def test_too_little_text_is_refused(
    script: ModuleType, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "novels_paragraphs.txt").write_text("one line\nanother\n")
    with pytest.raises(SystemExit, match="novels_paragraphs.txt.*too short"):
        run(script, monkeypatch, data, tmp_path / "work", tmp_path / "out")


def test_the_decoder_in_the_box_was_trained() -> None:
    folder = Path(decoder_path())
    report = json.loads((folder / "training.json").read_text())
    for source in report["held_out"].values():
        assert source["trained"] < source["untrained"] / 50
    assert sum(file.stat().st_size for file in folder.iterdir()) < 12_000_000
