"""Run the notebooks of examples/ from top to bottom, each in an empty folder, and write what comes out into them.

python scripts/run_notebooks.py [--check] [NOTEBOOK ...]

``make notebooks`` runs it in the environment of the integrations. What differs from run to run is taken out: times, progress bars
and logs (all of stderr, which is shown here instead), and metadata. With ``--check`` nothing is written, and a notebook that prints
something else than it holds is named; cells with the tag ``varies`` may.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
KERNEL = "python3"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
QUIET = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore:IProgress"}
LONGEST = 600  # seconds of one cell


def executed(path: Path, folder: str | Path) -> Any:
    """Run a notebook in a folder, with a kernel of its own.

    Args:
        path: The notebook.
        folder: Where its cells run; what they write stays there.

    Returns:
        The notebook with its outputs, tidied.

    Raises:
        nbclient.exceptions.CellExecutionError: If a cell raises; the message has its code and the traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook,
        timeout=LONGEST,
        kernel_name=KERNEL,
        record_timing=False,
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    client.execute(env=os.environ | QUIET)
    return tidied(notebook)


def tidied(notebook: Any) -> Any:
    """Take out of a notebook what differs from run to run and from machine to machine; stderr goes to this one's."""
    notebook.metadata = METADATA
    for cell in notebook.cells:
        cell.metadata = {"tags": cell.metadata["tags"]} if "tags" in cell.metadata else {}
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            if output.get("name") == "stderr":
                sys.stderr.write(output["text"])
            if "image/png" in output.get("data", {}):
                output["data"].pop("text/plain", None)  # the figure's size
        cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def printed(notebook: Any) -> list[str]:
    """What each code cell prints, but for those with the tag ``varies``."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    steady = [cell for cell in cells if "varies" not in cell.metadata.get("tags", [])]
    return ["".join(output.get("text", "") for output in cell.outputs) for cell in steady]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("notebooks", nargs="*", type=Path, metavar="NOTEBOOK", help="all of examples/ if none is named")
    parser.add_argument("--check", action="store_true", help="compare, and write nothing")
    given = parser.parse_args()
    differ = []
    for path in given.notebooks or sorted(EXAMPLES.glob("*.ipynb")):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            notebook = executed(path, folder)
        if not given.check:
            nbformat.write(notebook, path)
        elif printed(notebook) != printed(nbformat.read(path, as_version=4)):
            differ.append(path.name)
        print(f"{path.name}: {time.perf_counter() - started:.0f} s, {path.stat().st_size / 1000:.0f} kB", flush=True)
    if differ:
        raise SystemExit(f"{', '.join(differ)} print something else now: look why, then run `make notebooks`.")


if __name__ == "__main__":
    main()
