"""The code of the site: new pages run from top to bottom and print what they say; everywhere commands and names exist."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.cli import app as typer_app
from typer.core import TyperGroup
from typer.testing import CliRunner

from st_llm2vec import RECIPES, convert
from st_llm2vec.cli import app
from st_llm2vec.training import build_stages

from .publishing.conftest import same_process  # noqa: F401
from .test_readme import tables

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TITLES = (
    "quick_start",
    "concepts",
    "losses",
    "publishing",
    "own_pooling",
    "coming_from/llm2vec",
    "coming_from/nv_embed",
)
TRAINS = "coming_from/sentence_transformers"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("integrations/*/README.md"), ROOT / "README.md"])
TITLE_OF_COMMANDS = ("--name", "st-llm2vec", "--title", "Commands")
COMMAND = re.compile(r"^.*?\bst[-_]llm2vec (?=[a-z])")


def blocks(page: Path, language: str) -> list[str]:
    """The code of one language on a page, in order."""
    return [code for found, code in BLOCK.findall(page.read_text(encoding="utf-8")) if found == language]


def commands(page: Path) -> list[list[str]]:
    """The words behind ``st-llm2vec`` in each command line of a page."""
    lines = "".join(blocks(page, "bash")).replace("\\\n", "").splitlines()
    called = [line for line in lines if COMMAND.match(line) and "pip install" not in line and "-ray" not in line]
    return [shlex.split(COMMAND.sub("", line), comments=True) for line in called]


def parse(command: Any, words: list[str]) -> None:
    """Read a command line as the program does, without running it."""
    context = command.context_class(command)
    options, rest, _ = command.make_parser(context).parse_args(list(words))
    if isinstance(command, TyperGroup):
        _, chosen, rest = command.resolve_command(context, rest)
        return parse(chosen, rest)
    missing = [one.name for one in command.get_params(context) if one.required and not options.get(one.name)]
    assert not missing and not rest, f"{command.name} lacks {missing} or does not take {rest}"


@pytest.mark.parametrize("title", [*TITLES, pytest.param(TRAINS, marks=pytest.mark.slow)])
@pytest.mark.usefixtures("same_process")
def test_a_page_runs_and_prints_what_it_says(title: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    found = BLOCK.findall((DOCS / f"{title}.md").read_text(encoding="utf-8"))
    for (language, code), (follows, said) in zip(found, [*found[1:], ("end", "")], strict=True):
        if language == "python":
            output = io.StringIO()
            with contextlib.redirect_stdout(output):
                exec(compile(code, f"{title}.md", "exec"), names)
            assert follows == "" or title == TRAINS, "say what it prints"
            if follows == "":
                assert output.getvalue().strip() == said.strip()


def test_the_commands_of_the_quick_start_run(decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ran = commands(DOCS / "quick_start.md")
    for words in ran:
        done = CliRunner().invoke(app, [decoder if word == "org/decoder" else word for word in words])
        assert done.exit_code == 0, done.output
    assert [words[0] for words in ran] == ["inspect", "convert", "encode"]


@pytest.mark.slow
def test_the_list_of_recipes_says_what_each_is(decoder: str) -> None:
    rows = {}
    for cells in tables((DOCS / "losses.md").read_text(encoding="utf-8"))[0][2:]:
        rows |= dict.fromkeys(re.findall(r"`([^`]+)`", cells[0]), cells)
    assert set(rows) == set(RECIPES)
    for name, recipe in RECIPES.items():
        _, _, attention, _, instructed, saved = rows[name]
        overrides = {"latent_attention": {"num_latents": 2, "num_heads": 1}} if name == "nv-embed" else {}
        assert attention == recipe.attention
        assert (instructed == "yes") == (recipe.instruction_template is not None)
        assert (saved == "custom") == (convert(decoder, name, **overrides).manifest.layout == "custom")


def test_the_page_of_commands_is_what_they_say_of_themselves() -> None:
    done = CliRunner().invoke(typer_app, ["st_llm2vec.cli", "utils", "docs", *TITLE_OF_COMMANDS])
    assert done.output.strip() == (DOCS / "commands.md").read_text(encoding="utf-8").strip(), "run `make docs`"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_what_a_page_calls_exists(page: Path) -> None:
    for words in commands(page):
        parse(typer.main.get_command(app), words)
    for code in blocks(page, "yaml"):
        read = yaml.safe_load(code)
        if isinstance(read, dict) and "stages" in read:
            build_stages(read, "never-made", "no/model")
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "st_llm2vec":
                module = importlib.import_module(str(node.module))
                assert [one.name for one in node.names if not hasattr(module, one.name)] == []


@pytest.mark.parametrize(
    "words", [["convert", "org/decoder", "--nothing", "1"], ["convrt"], ["convert", "--recipe", "echo"]]
)
def test_a_command_line_that_is_wrong_is_found(words: list[str]) -> None:
    with pytest.raises(Exception, match="nothing|convrt|lacks"):
        parse(typer.main.get_command(app), words)
