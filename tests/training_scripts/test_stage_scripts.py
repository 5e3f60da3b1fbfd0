"""The stages' scripts: their own tiny command lines, resume, and what they refuse."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerCallback

from st_llm2vec import convert, load
from st_llm2vec.training import Stage, build_stages, run_stages

FOLDER = Path(__file__).parents[2] / "training_scripts"
CONFIGS = FOLDER / "configs"
SCRIPTS = ["mntp", "simcse", "supervised", "two_stage", "prompteol_cse"]


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(autouse=True)
def beside_each_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Scripts import from their own folder, and their runs go to the test's."""
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.chdir(tmp_path)


def run(monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
    module(script).main()


def header_lines(script: str) -> list[list[str]]:
    """The commands in a script's header, as the shell would split them."""
    text = module(script).__doc__.replace("\\\n", " ")
    return [shlex.split(line) for line in re.findall(r"^    ((?:python|accelerate) .*)$", text, re.MULTILINE)]


def tiny_line(script: str) -> list[str]:
    [line] = [line for line in header_lines(script) if "--tiny" in line]
    assert line[:2] == ["python", f"training_scripts/{script}.py"]
    return line[2:]


def weights(folder: str) -> dict[tuple[str, str], Tensor]:
    """Of all modules of an encoder, by module and name."""
    files = [Path(folder) / "model.safetensors", *Path(folder).glob("[0-9]*/model.safetensors")]
    return {
        (file.parent.name if file.parent != Path(folder) else "", name): value
        for file in files
        for name, value in load_file(file).items()
    }


class StopAtFirstSave(TrainerCallback):
    def on_save(self, *args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    "script", [one if one == "simcse" else pytest.param(one, marks=pytest.mark.slow) for one in SCRIPTS]
)
def test_the_tiny_command_line_interrupted_and_repeated_trains_what_the_stages_would(
    script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = tiny_line(script)
    output = line[line.index("--output") + 1]
    with monkeypatch.context() as patch:
        patch.setattr(Stage, "callbacks", lambda self: [StopAtFirstSave()])
        with pytest.raises(KeyboardInterrupt):
            run(monkeypatch, script, *line)
    run(monkeypatch, script, *line)
    encoder = load(output)
    assert encoder.encode("a cat").shape == (192,)
    names = {"two_stage": ["retrieval", "blended"]}.get(script, [script])
    assert [stage["name"] for stage in encoder.manifest.stages] == names
    assert all(stage["steps"] == 3 and stage["merged"] for stage in encoder.manifest.stages)
    plan = module("command_line").tiny_plan("whole", tuple(names))
    run_stages(build_stages(plan, "whole"))
    expected, found = weights("whole"), weights(output)
    assert set(found) == set(expected)
    assert all(found[name].equal(expected[name]) for name in expected)


def test_a_finished_run_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(Stage, "start", lambda self: pytest.fail("it was trained again"))
    Path("done").mkdir()
    [stage] = build_stages(module("command_line").tiny_plan("done", ("mntp",)), "done")
    stage.folder.finish()
    run(monkeypatch, "mntp", "--tiny", "--output", "done")
    assert "done holds the finished run" in capsys.readouterr().out


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_help_shows_the_header(script: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    with pytest.raises(SystemExit, match="0"):
        run(monkeypatch, script, "--help")
    shown = capsys.readouterr().out
    assert "one GPU" in shown and "many GPUs" in shown and "tiny run on a CPU" in shown
    assert "--set KEY=VALUE" in shown


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_command_line_of_the_headers_is_understood(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command_line = module("command_line")
    lines = header_lines(script)
    assert len(lines) >= 3
    monkeypatch.chdir(FOLDER.parent)
    for line in lines:
        place = line.index(f"training_scripts/{script}.py")
        for name in re.findall(r"training_scripts/\S+", " ".join(line)):
            assert Path(name).is_file()
        if "--tiny" in line:
            continue  # it writes its pairs
        monkeypatch.setattr(sys, "argv", line[place:])
        names = ("retrieval", "blended") if script == "two_stage" else (script,)
        stages = command_line.read_command_line("", *names)
        assert stages[-1].output == line[line.index("--output") + 1]


@pytest.mark.slow
def test_a_script_runs_as_a_program(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(FOLDER.parent), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(FOLDER / "mntp.py"), "--output", "run", "--set", "data"]
    found = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert found.returncode == 2
    assert "error: --set data is not KEY=VALUE, such as training.max_steps=100." in found.stderr


def read(monkeypatch: pytest.MonkeyPatch, *arguments: str, names: tuple[str, ...] = ("simcse",)) -> list[Stage]:
    monkeypatch.setattr(sys, "argv", ["script.py", "--output", "run", *arguments])
    return module("command_line").read_command_line("", *names)


def test_a_later_stage_of_a_plan_starts_from_the_folder_of_the_one_before(
    decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = str(CONFIGS / "llm2vec_mistral_7b_unsupervised.yaml")
    convert(decoder, "llm2vec").save("before")
    [stage] = read(monkeypatch, "--config", plan, "--model", "before", "--set", "training.learning_rate=1e-4")
    assert stage.model == "before" and stage.changes == {} and stage.max_length == 128
    assert stage.adapter.targets[0] == "q_proj" and stage.training["gradient_checkpointing"] is True
    assert stage.training["learning_rate"] == 1e-4
    assert stage.start().max_seq_length == 128
    [first] = read(monkeypatch, "--config", plan, names=("mntp",))
    assert first.model.startswith("mistralai/") and "[INST]" in first.changes["template"]


def test_changes_are_for_all_stages_or_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = str(CONFIGS / "nv_embed_v2.yaml")
    changes = ("adapter.r=4", "blended.training.max_steps=7", "mini_batch_size=2")
    arguments = [word for change in changes for word in ("--set", change)]
    first, second = read(monkeypatch, "--config", plan, *arguments, names=("retrieval", "blended"))
    assert (first.adapter.r, second.adapter.r, first.adapter.alpha) == (4, 4, 32)
    assert (first.training["max_steps"], second.training["max_steps"]) == (20_000, 7)
    assert first.mini_batch_size == second.mini_batch_size == 2
    assert second.model == first.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "llm2vec_mistral_7b_unsupervised.yaml"], "name the folder that the stage before left"),
        (["--config", "nv_embed_v1.yaml"], "has the stages retrieval, blended; this script trains simcse"),
        (["--config", "missing.yaml"], "cannot be read"),
        (["--tiny", "--config", "nv_embed_v1.yaml"], "leave --config out"),
        (["--model", "before", "--set", "scale"], "is not KEY=VALUE"),
        (["--model", "before", "--set", "temperature=1"], "does not have these settings"),
        (["--model", "before", "--set", "training.learning_rat=1"], "do not fit"),
        ([], "names no model"),
    ],
)
def test_a_wrong_command_line_is_a_sentence(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(CONFIGS)
    with pytest.raises(SystemExit, match="2"):
        read(monkeypatch, *arguments)
    assert message in " ".join(capsys.readouterr().err.split())
