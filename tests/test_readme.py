"""What the README shows is what happens."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from scripts.first_lines import first_lines
from st_llm2vec import decoder_path
from st_llm2vec.cli import app

from .hub_server import Hub
from .publishing.conftest import hub, same_process  # noqa: F401

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGE = (ROOT / "docs" / "learning_real.md").read_text(encoding="utf-8")


def tables(page: str) -> list[list[list[str]]]:
    """The tables of a page, each as rows of cells."""
    found = re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE)
    return [[[cell.strip() for cell in line.strip("|").split("|")] for line in one.splitlines()] for one in found]


def run(code: str) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), {})
    return output.getvalue().strip()


def test_the_first_lines_print_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, printed = first_lines(decoder_path())
    assert 'convert("HuggingFaceTB/SmolLM2-135M-Instruct", "prompteol-icl")' in README, "what works untrained"
    monkeypatch.chdir(tmp_path)
    assert run(code) == printed
    assert (tmp_path / "my-encoder" / "modules.json").is_file()


def test_it_is_short_and_its_scores_are_those_of_the_page() -> None:
    assert len(README.splitlines()) <= 110
    header, _, *shown = next(one for one in tables(README) if one[0][:1] == ["encoder"])
    columns, _, *measured = next(one for one in tables(PAGE) if one[0][:1] == ["encoder"])
    assert len(shown) >= 5
    for row in shown:
        scores = next(one for one in measured if one[:2] == row[:2])
        assert row == [scores[columns.index(name)] for name in header]


@pytest.mark.usefixtures("same_process")
def test_the_story_of_four_commands(decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:  # noqa: F811
    """On the loopback Hub; training, which has tests of its own, is left out here."""
    story = re.search(
        r"From a decoder to a search that needs Sentence Transformers alone:\n\n```bash\n(.*?)```", README, re.DOTALL
    ).group(1)
    commands = [shlex.split(line) for line in story.splitlines()]
    assert [command[1] for command in commands] == ["convert", "train", "publish", "-c"]
    monkeypatch.chdir(tmp_path)
    for command in commands[:3]:
        if command[1] == "train":
            shutil.copytree(command[command.index("--model") + 1], command[command.index("--output") + 1])
            continue
        if command[1] == "convert":
            command[command.index("org/decoder")] = decoder
        done = CliRunner().invoke(app, command[1:])
        assert done.exit_code == 0, done.output
    assert run(commands[3][2]).startswith("[")
    assert hub.asked_for("org/my-encoder", "/model.safetensors")
