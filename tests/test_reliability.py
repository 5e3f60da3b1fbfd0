"""docs/reliability.md says what the tests found, failures too, and names no test that is not there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from scripts.write_reliability import FAMILY, TARGET, page, read_attacks

from .promises import Promise

ROOT = Path(__file__).parents[1]
NAMED = re.compile(r"`(tests/[\w/]+\.py)::((?:\w+::)?\w+)`")
TESTS = """
import pytest

@pytest.mark.promise("{one}")
@pytest.mark.parametrize("distance", [4e-13, 5e-13])
def test_distances(distance, record_property):
    record_property("cases", 1000)
    record_property("figure", f"largest distance {{distance}}")

@pytest.mark.promise("{one}")
@pytest.mark.promise("{other}")
@pytest.mark.parametrize("batch", [1, 2, 3])
def test_batches(batch, tmp_path):
    if batch == 2:
        pytest.skip("no | here")
    assert batch < 3, "it is <torn>"

@pytest.mark.promise("{other}")
def test_more(): pass

def test_unmarked(): assert False
"""


def test_the_page_names_only_tests_that_exist() -> None:
    named = NAMED.findall(TARGET.read_text(encoding="utf-8"))
    assert len(named) > 10
    for file, test in named:
        assert f"def {test.split('::')[-1]}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"


def test_what_tests_report_is_what_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.promises import pytest_collection_modifyitems")
    one, other = Promise.ONE_VECTOR.value, Promise.SAVED_WHOLE.value
    (tmp_path / "test_a.py").write_text(TESTS.format(one=one, other=other))
    command = [sys.executable, "-m", "pytest", "--junitxml=report.xml", *FAMILY]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""}
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    written = page(read_attacks(tmp_path / "report.xml"), "a command", "a machine.", "All of them.")
    assert "**2 of the tests failed.**" in written and "test_unmarked" not in written
    sections = {part.split("\n")[0]: part for part in written.split("\n## ")}
    assert "| `test_a.py::test_distances` | 2,000 | largest distance 5e-13 | holds |" in sections[one]
    failed = "| 2 |  | **1 failed**: AssertionError: it is &lt;torn>; 1 skipped: no \\| here |"
    assert failed in sections[one] and failed in sections[other]
    assert "test_more` | 1 |  | holds |" in sections[other]
    assert "No test of this run attacks it." in sections[Promise.MERGED.value]

    failing = (tmp_path / "report.xml").read_text()
    (tmp_path / "again.xml").write_text(failing.replace("<failure", "<note").replace("</failure", "</note"))
    mended = read_attacks(tmp_path / "report.xml", tmp_path / "again.xml")
    assert "all that ran hold" in page(mended, "a command", "a machine.", "All of them.")
    assert sum(attack.cases for attack in mended[Promise.ONE_VECTOR]) == 2000 + 2
