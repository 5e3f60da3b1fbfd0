"""A run's folder is never mixed with another run, and torn checkpoints are passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from st_llm2vec.training.run_folder import RunFolder

SETTINGS = {"stage": "mntp", "output": "x", "training": {"max_steps": 10, "logging_steps": 5}}


def checkpoint(folder: RunFolder, step: int, leave_out: str = "", processes: int = 1) -> None:
    path = folder.checkpoints / f"checkpoint-{step}"
    path.mkdir(parents=True)
    states = ["rng_state.pth"] if processes == 1 else [f"rng_state_{index}.pth" for index in range(processes)]
    for name in ["modules.json", *states, "trainer_state.json"]:
        if name != leave_out:
            (path / name).write_text("{}")


def test_a_run_is_continued_with_harmless_changes_only(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", SETTINGS).claim()
    checkpoint(RunFolder(tmp_path / "run", SETTINGS), 5)
    training = SETTINGS["training"]
    RunFolder(tmp_path / "run", {**SETTINGS, "output": "y", "training": {**training, "logging_steps": 1}})
    with pytest.raises(ValueError, match="another run: training.max_steps was 10 and is 11 now"):
        RunFolder(tmp_path / "run", {**SETTINGS, "training": {**training, "max_steps": 11}})


def test_settings_may_change_until_there_is_a_checkpoint(tmp_path: Path) -> None:
    RunFolder(tmp_path / "run", SETTINGS).claim()
    changed = {**SETTINGS, "stage": "simcse"}
    RunFolder(tmp_path / "run", changed).claim()
    checkpoint(RunFolder(tmp_path / "run", changed), 5)
    with pytest.raises(ValueError, match="another run"):
        RunFolder(tmp_path / "run", SETTINGS)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/thesis.txt").write_text("x")
    with pytest.raises(ValueError, match="not empty and holds no training run"):
        RunFolder(tmp_path / "full", SETTINGS)
    with pytest.raises(ValueError, match="is a file"):
        RunFolder(tmp_path / "full/thesis.txt", SETTINGS)
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn/training_run.json").write_text('{"sett')
    with pytest.raises(ValueError, match="cannot be read"):
        RunFolder(tmp_path / "torn", SETTINGS)


@pytest.mark.parametrize("missing", ["modules.json", "rng_state.pth", "trainer_state.json"])
def test_a_checkpoint_that_was_interrupted_is_passed_over(tmp_path: Path, missing: str) -> None:
    folder = RunFolder(tmp_path / "run", SETTINGS)
    assert folder.last_checkpoint() is None
    checkpoint(folder, 9)
    checkpoint(folder, 10, leave_out=missing)
    assert folder.last_checkpoint().endswith("checkpoint-9")
    (folder.checkpoints / "checkpoint-9/trainer_state.json").write_text('{"epoch": 1.')
    assert folder.last_checkpoint() is None


def test_every_process_has_to_have_written(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", SETTINGS)
    checkpoint(folder, 1, processes=2)
    checkpoint(folder, 2, leave_out="rng_state_1.pth", processes=2)
    assert folder.last_checkpoint(2).endswith("checkpoint-1")


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", SETTINGS)
    checkpoint(folder, 3, processes=2)
    with pytest.raises(ValueError, match="were made by 2 processes, and there are 1 now"):
        folder.last_checkpoint(1)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run", SETTINGS)
    with folder.held():
        folder.claim()
        with pytest.raises(ValueError, match="Another process is training into .*run. Wait for it, or stop it"):
            with RunFolder(tmp_path / "run", SETTINGS).held():
                pass
    with folder.held():
        pass
    assert {one.name for one in tmp_path.iterdir()} == {"run"}


def test_a_folder_that_was_killed_before_it_was_claimed_is_new(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/.training_run.json").write_text('{"sett')
    folder = RunFolder(tmp_path / "run", SETTINGS)
    folder.claim()
    assert {one.name for one in folder.path.iterdir()} == {"training_run.json"}
