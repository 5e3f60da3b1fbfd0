"""``st-llm2vec publish``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from st_llm2vec import convert
from st_llm2vec.cli import app

from ..hub_server import Hub
from ..publishing.conftest import folder, hub, same_process  # noqa: F401


def run(*arguments: str):
    return CliRunner().invoke(app, ["publish", *arguments])


@pytest.mark.usefixtures("same_process")
def test_a_dry_run_lists_files_and_sizes(decoder: str, tmp_path: Path, hub: Hub) -> None:  # noqa: F811
    convert(decoder, "llm2vec", max_length=64).save_pretrained(str(tmp_path / "encoder"))
    results = tmp_path / "results.json"
    results.write_text(json.dumps([{"dataset": "STSB", "metric": "spearman", "value": 0.7}]))
    kept = tmp_path / "kept"
    done = run(
        str(tmp_path / "encoder"),
        "org/encoder",
        "--dry-run",
        "--results",
        str(results),
        "--license",
        "mit",
        "--base-model",
        "org/decoder",
        "-o",
        str(kept),
    )
    assert done.exit_code == 0, done.output
    assert "model.safetensors" in done.stdout and "5.9 MB" in done.stdout and "this was a dry run" in done.stdout
    shown = " ".join(done.stdout.split())
    assert "org/decoder, believed: it was not looked up on the Hub" in shown
    assert f"st-llm2vecserve{tmp_path / 'encoder'}" in "".join(done.stdout.split())  # a long path is folded
    assert "Verifying" in done.stderr
    card = (kept / "README.md").read_text()
    assert "license: mit" in card and "STSB" in card
    assert not hub.asked_for("org/encoder")


@pytest.mark.usefixtures("same_process")
def test_json_has_the_address_and_the_check(decoder: str, tmp_path: Path, hub: Hub) -> None:  # noqa: F811
    convert(decoder, "llm2vec", max_length=64).save_pretrained(str(tmp_path / "encoder"))
    done = run(str(tmp_path / "encoder"), "org/encoder", "--private", "--message", "Mine", "--json")
    found = json.loads(done.stdout)
    commit = hub.repositories["org/encoder"].branches["main"][-1]
    assert found["commit"] == commit.oid and found["url"].endswith(commit.oid) and commit.message == "Mine"
    assert found["check"]["probe"]["kind"] == "bidirectional" and found["card"] == "new"
    again = run(str(tmp_path / "encoder"), "org/encoder")
    assert again.exit_code == 1 and "--exist-ok" in again.stderr


def test_errors_are_sentences(tmp_path: Path, decoder: str) -> None:
    for arguments, message in (
        (("nowhere/at/all", "org/encoder", "--dry-run"), "There is no folder"),
        ((decoder, "encoder", "--dry-run"), "must be org/name"),
        ((decoder, "org/encoder", "--dry-run"), "not an encoder yet"),
    ):
        done = run(*arguments)
        assert done.exit_code == 1 and message in done.stderr and "Traceback" not in done.stderr
