"""The notebooks: what is committed of them is whole and holds nothing of a machine, and they run and print what they hold."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
LARGEST = 250_000
"""Bytes, so that a clone stays small and a page that shows it is quick."""
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
OF_A_MACHINE = re.compile(r"/(?:home|root|tmp|Users|usr|opt|work|var)/|[A-Z]:\\\\|site-packages|0x[0-9a-f]{6,}")
NEEDS = {"03": ["litserve"], "04": ["langchain_st_llm2vec"], "05": ["llama_index.embeddings.st_llm2vec"]}
"""What a notebook imports besides the package and its extra ``report``, by its number."""
every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_they_are_numbered() -> None:
    assert [path.stem[:3] for path in NOTEBOOKS] == [f"{number:02}_" for number in range(1, 6)]


@every
def test_a_notebook_was_run_from_top_to_bottom(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert notebook["metadata"] == {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    code = cells(path, "code")
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1)), "run `make notebooks`"
    kinds = {output.get("name", output["output_type"]) for cell in code for output in cell["outputs"]}
    assert "stdout" in kinds
    assert kinds <= {"stdout", "display_data", "execute_result"}, "neither errors nor what went to stderr"
    assert any("image/png" in output.get("data", {}) for cell in code for output in cell["outputs"])
    assert all(set(cell["metadata"]) <= {"tags"} for cell in notebook["cells"])


@every
def test_a_notebook_is_small_and_names_no_machine(path: Path) -> None:
    assert path.stat().st_size < LARGEST
    for cell in cells(path, "code"):
        for output in cell["outputs"]:
            output.get("data", {}).pop("image/png", None)
            assert OF_A_MACHINE.search(json.dumps(output)) is None


@every
def test_a_notebook_says_what_to_install_and_its_links_hold(path: Path) -> None:
    for cell in cells(path, "code"):
        ast.parse("".join(cell["source"]))
    first, *others = ["".join(cell["source"]) for cell in cells(path, "markdown")]
    assert first.startswith(f"# {int(path.stem[:2])}. ")
    assert 'pip install "st-llm2vec[report' in first
    for target in re.findall(r"\]\((?!https?:)([^)#]+)[)#]", "\n".join([first, *others])):
        assert (path.parent / target).is_file(), target


def test_the_table_of_examples_has_every_one() -> None:
    table = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".ipynb")}
    assert set(re.findall(r"^\| \[[^]]+\]\(([^)]+)\)", table, re.MULTILINE)) == files


@pytest.mark.slow
@every
def test_a_notebook_runs_and_prints_what_it_holds(path: Path, tmp_path: Path) -> None:
    for module in ("nbclient", "ipykernel", "matplotlib", "sklearn", *NEEDS.get(path.stem[:2], [])):
        pytest.importorskip(module)
    import nbformat

    from scripts.run_notebooks import executed, printed

    assert printed(executed(path, tmp_path)) == printed(nbformat.read(path, as_version=4))
