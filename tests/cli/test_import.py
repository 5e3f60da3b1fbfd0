"""``st-llm2vec import`` and ``st-llm2vec verify``."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from st_llm2vec import from_llm2vec, load
from st_llm2vec.cli import app

from ..conftest import INSTRUCTION, TEXTS, cosine_distance
from ..importing.conftest import stack  # noqa: F401


def run(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


def test_import_then_verify(decoder: str, stack: Path, tmp_path: Path) -> None:  # noqa: F811
    source, output = stack / "tiny-mntp-supervised", tmp_path / "encoder"
    done = run("import", source, "--base", decoder, "-o", output, "--prompt", f"query={INSTRUCTION}", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["layout"] == "text" and [stage["name"] for stage in found["stages"]] == ["mntp", "supervised"]
    reference = from_llm2vec(source, base=decoder)
    assert cosine_distance(load(output).encode(TEXTS), reference.encode(TEXTS)) < 1e-6
    expected = tmp_path / "expected.json"
    queries = reference.encode(TEXTS, prompt=INSTRUCTION)
    vectors = {"documents": reference.encode(TEXTS).tolist(), "queries": queries.tolist()}
    expected.write_text(json.dumps({"texts": TEXTS, "instruction": INSTRUCTION, **vectors}))
    for model, base in ((output, ()), (source, ("--base", decoder))):
        done = run("verify", model, *base, "--expected", expected)
        assert done.exit_code == 0 and "agrees" in done.stdout, done.output
    other = run("verify", stack / "tiny-mntp", "--base", decoder, "--expected", expected, "--json")
    assert other.exit_code == 1 and not json.loads(other.stdout)["passed"]


def test_bad_calls_are_told(decoder: str, stack: Path, tmp_path: Path) -> None:  # noqa: F811
    for arguments, message in (
        (("import", decoder, "-o", tmp_path / "x"), "Neither the files nor the name"),
        (("import", decoder, "-o", decoder), "own folder"),
        (("import", stack / "tiny-mntp", "-o", tmp_path / "x", "--mntp", "a", "--no-mntp"), "not both"),
        (("import", stack / "tiny-mntp", "-o", tmp_path / "x", "--dtype", "int3"), "is not one of"),
        (("verify", decoder), "No published values are known for"),
        (("verify", stack / "tiny-mntp", "--expected", decoder), "does not hold texts and their vectors"),
    ):
        done = run(*arguments)
        assert done.exit_code == 1 and message in done.stderr, done.output
    assert not (tmp_path / "x").exists()
