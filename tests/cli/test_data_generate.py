"""``st-llm2vec data generate``: what is shown, what is written, and Ctrl-C."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from st_llm2vec.cli import app
from st_llm2vec.synthetic.journal import Journal

from ..promises import Promise

pytest.importorskip("langchain_core")

MODEL = "tests.synthetic.writers:chat_model"
OPTIONS = ["--tasks", "2", "--examples", "6", "--group", "short-long", "--group", "sts"]


@pytest.fixture
def heard() -> Iterator[None]:
    """Hear the signal of Ctrl-C, which a shell has processes in its background ignore."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "generate", *map(str, arguments)])


def test_a_run_is_shown_and_trains(tmp_path: Path) -> None:
    pytest.importorskip("json_repair")
    done = run(MODEL, "-o", tmp_path / "out", *OPTIONS, "--price-read", 1, "--price-written", 2)
    assert done.exit_code == 0, done.output
    assert "6 of 6, from 7 requests" in done.stdout and "700 read, 350 written" in done.stdout and "0.00" in done.stdout
    assert f"train --pairs {tmp_path / 'out/mixture.yaml'}" in done.stdout.replace("\n", "")
    again = run(MODEL, "-o", tmp_path / "out", *OPTIONS, "--json")
    report = json.loads(again.stdout)
    assert report["this call"]["requests"] == 0 and report["complete"] and report["cost"] is None
    shown = CliRunner().invoke(app, ["data", "show", str(tmp_path / "out/mixture.yaml"), "--json"])
    assert [one["rows"] for one in json.loads(shown.stdout)["sources"]] == [3, 3]


def test_a_dry_run_asks_nothing(tmp_path: Path) -> None:
    done = run("anything", "-o", tmp_path / "out", "--preset", "nv-embed", "--dry-run")
    assert done.exit_code == 0 and "123," in done.stdout and not (tmp_path / "out").exists()
    plan = json.loads(run("anything", "-o", tmp_path / "out", *OPTIONS, "--dry-run", "--json").stdout)
    assert plan["rows"] == {"short-long": 3, "sts": 3} and plan["requests"] == 7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere", *OPTIONS], "There is no folder nowhere"),
        ([MODEL, "--group", "bitext"], "Name more languages"),
        ([MODEL, "--preset", "e6"], "Known: small, e5, nv-embed"),
        ([MODEL, "--language", "Elvish"], "There is no language 'Elvish'"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = run(*arguments, "-o", tmp_path / "out")
    assert done.exit_code == 1 and words in " ".join(done.stderr.split()) and "Traceback" not in done.output


@pytest.mark.promise(Promise.RESUMED)
@pytest.mark.usefixtures("heard")
def test_stopped_it_keeps_what_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Journal.write

    def interrupted(self: Journal, *arguments: Any) -> None:
        real(self, *arguments)
        if len(self) == 4:
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", interrupted)
        stopped = run(MODEL, "-o", tmp_path / "out", *OPTIONS, "--concurrency", 1)
    assert stopped.exit_code == 130 and "Every answer that came is kept" in " ".join(stopped.stderr.split())
    kept = len((tmp_path / "out/requests.jsonl").read_text().splitlines())
    assert 4 <= kept <= 5
    report = json.loads(run(MODEL, "-o", tmp_path / "out", *OPTIONS, "--json").stdout)
    assert report["this call"]["requests"] == 7 - kept and report["complete"]
