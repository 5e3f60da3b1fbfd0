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

from st_llm2vec import RECIPES, EncoderConfig, convert
from st_llm2vec.cli import app

from .hub_server import Hub
from .publishing.conftest import hub, same_process  # noqa: F401

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_the_first_lines_print_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, printed = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", README, re.DOTALL).groups()
    monkeypatch.chdir(tmp_path)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), {})
    assert output.getvalue().strip() == printed.strip()
    compass, violin = map(float, re.findall(r"\d\.\d+", printed))
    assert violin > compass
    assert 'convert(decoder_path(), "prompteol-icl")' in code, "any folder in its place: what works untrained"
    assert (tmp_path / "my-encoder" / "modules.json").is_file()


@pytest.mark.usefixtures("same_process")
def test_the_story_of_four_commands(decoder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hub: Hub) -> None:  # noqa: F811
    """On the loopback Hub; training, which has tests of its own, is left out here."""
    story = re.search(r"## Convert, train, publish, use\n\n```bash\n(.*?)```", README, re.DOTALL).group(1)
    commands = [shlex.split(line) for line in story.splitlines()]
    assert [command[1] for command in commands] == ["convert", "train", "publish", "-c"]
    monkeypatch.chdir(tmp_path)
    for command in commands[:3]:
        if command[1] == "train":
            shutil.copytree(command[command.index("--model") + 1], command[command.index("--output") + 1])
            continue
        done = CliRunner().invoke(app, [decoder if word == "org/decoder" else word for word in command[1:]])
        assert done.exit_code == 0, done.output
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(commands[3][2], "README.md", "exec"), {})
    assert output.getvalue().strip().startswith("[")
    assert hub.asked_for("org/my-encoder", "/model.safetensors")


@pytest.mark.slow
def test_the_table_lists_every_recipe_as_it_is(decoder: str) -> None:
    rows = {}
    for line in README.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 6 and cells[0].startswith("`"):
            for name in re.findall(r"`([^`]+)`", cells[0]):
                rows[name] = cells
    assert set(rows) == set(RECIPES)
    for name, recipe in RECIPES.items():
        _, _, attention, _, instructed, saved = rows[name]
        overrides = {"latent_attention": {"num_latents": 2, "num_heads": 1}} if name == "nv-embed" else {}
        layout = convert(decoder, name, **overrides).manifest.layout
        assert attention == recipe.attention
        assert (instructed == "yes") == (recipe.instruction_template is not None)
        assert (saved == "custom") == (layout == "custom")


def test_the_recipe_of_ones_own(decoder: str) -> None:
    config = re.search(r"mine = (EncoderConfig.*)\n", README).group(1)
    encoder = convert(decoder, eval(config, {"EncoderConfig": EncoderConfig}))
    assert encoder.encode("a text").shape == (192,)
