"""``st-llm2vec evaluate report``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .test_cli import loud_again, run, succeed  # noqa: F401

WORDS = "The DT\ngirl NN\nsees VBZ\n\na DT\ncat NN\n\n"


def test_a_decoder_under_both_kinds_of_attention_has_one_inside(decoder: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "words.txt").write_text(WORDS * 3)
    plan = tmp_path / "plan.yaml"
    plan.write_text(
        "tasks:\n- {name: tags, kind: words, train: words.txt, test: words.txt, columns: {label: pos}, probe: logistic}\n"
    )
    options = ["--report", tmp_path / "out", "--task", plan, "--cache", tmp_path / "kept"]
    shown = succeed("evaluate", decoder, *options)
    assert "report.html in a browser" in shown.stdout
    data = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [one["source"] for one in data["models"]] == [f"{decoder}, causal", f"{decoder}, bidirectional"]
    assert list(data["insides"]) == [decoder]
    assert [one["task"] for one in data["models"][0]["results"]] == ["Built-in sentences", "tags"]
    assert data["baseline"][1]["scores"]["accuracy"] == 100
    again = json.loads(succeed("evaluate", "report", decoder, *options, "--json").stdout)
    assert again["models"] == data["models"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "no such model"], "No such command 'no such model'"),
        (["evaluate", "no such model", "--report", "TAKEN"], "is a file; give a folder for the report"),
        (["evaluate", "report", "no such model"], "Missing option"),
        (["evaluate", "words", "no such model", "--report", "TAKEN"], "No such option: --report"),
    ],
)
def test_bad_options_are_a_sentence(arguments: list[str], sentence: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "taken").write_text("")
    result = run(*(str(tmp_path / "taken") if one == "TAKEN" else one for one in arguments))
    assert result.exit_code != 0 and sentence in " ".join(result.output.split()) and "Traceback" not in result.output


def test_matplotlib_is_asked_for_before_anything_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = run("evaluate", "no such model", "--report", tmp_path / "out")
    assert result.exit_code == 1 and "pip install 'st-llm2vec[report]'" in result.stderr
    assert not (tmp_path / "out").exists()
