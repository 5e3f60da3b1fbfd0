"""Run the first lines of README.md with whatever st_llm2vec is installed, away from the sources, and compare what they print.

The decoder in the box stands in for the one that they name, which is on the Hub.

python -I scripts/first_lines.py
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMED = re.compile(r'(?<=convert\()"[^"]+"')


def first_lines(decoder: str) -> tuple[str, str]:
    """The first Python lines of README.md with a decoder in the named one's place, and what they print."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.search(r"```python\n(.*?)```\n\n```\n(.*?)```", readme, re.DOTALL)
    if found is None:
        raise SystemExit("README.md has no Python lines with what they print behind them: put them first.")
    return NAMED.sub(lambda _: repr(decoder), found[1]), found[2].strip()


def main() -> None:
    import st_llm2vec

    place = Path(st_llm2vec.__file__).resolve()
    if place.is_relative_to(ROOT / "st_llm2vec"):
        raise SystemExit(
            f"These are the sources, {place}: run it with the Python that the wheel is installed for, and -I."
        )
    code, said = first_lines(st_llm2vec.decoder_path())
    output = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), contextlib.redirect_stdout(output):
        exec(compile(code, "README.md", "exec"), {})
    if output.getvalue().strip() != said:
        raise SystemExit(f"README.md says\n{said}\nand its first lines print\n{output.getvalue()}")
    print(f"{os.path.relpath(place.parent)}, {st_llm2vec.__version__}: README.md's first lines print what it says")


if __name__ == "__main__":
    main()
