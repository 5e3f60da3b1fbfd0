"""Rows of a table, each measured in a process of its own and kept in a file: an interrupted run goes on."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).parents[1]
Row = dict[str, Any]


def write_lines(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSON lines; a file that holds them is left as it is, with its time, by which interrupted runs know it."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def in_process(module: str, *arguments: str) -> str:
    """The last line that a module of the benchmarks prints, run as a program."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().splitlines()[-1]


def parse(parser: argparse.ArgumentParser, measure: Callable[..., Row], names: Sequence[str]) -> argparse.Namespace:
    """Read a benchmark's command line, and measure the one row that :func:`measure_rows` asks a process for.

    Args:
        parser: Its other options.
        measure: Takes what a row is about, and gives the row.
        names: The fields of a row that say what it is about.

    Returns:
        What was given. A process that is asked for one row prints it and ends here.
    """
    given = parse_options(parser, names)
    if given.one:
        print(json.dumps(measure(*given.one)))
        raise SystemExit
    return given


def parse_options(parser: argparse.ArgumentParser, names: Sequence[str]) -> argparse.Namespace:
    """Read a benchmark's command line, with ``--again``, and ``--one`` for what one row is about."""
    parser.add_argument("--again", action="store_true", help="measure all rows anew")
    parser.add_argument("--one", nargs=len(names), help=argparse.SUPPRESS)
    return parser.parse_args()


def measure_rows(
    module: str,
    results: Path,
    names: Sequence[str],
    wanted: Sequence[tuple[str, ...]],
    write_page: Callable[[list[Row]], None],
    again: bool = False,
    options: Sequence[str] = (),
    order: Sequence[tuple[str, ...]] | None = None,
) -> None:
    """Measure the rows that are not kept yet, and write the page of all there are, also when interrupted.

    Args:
        module: Run with ``--one`` and what a row is about, it prints the row as JSON; see :func:`parse`.
        results: The file of rows, as JSON lines.
        names: The fields of a row that say what it is about.
        wanted: Their values, row by row, in the page's order.
        write_page: Takes all rows, in order.
        again: Whether to measure all rows anew.
        options: Further options of the process that measures a row.
        order: All rows that there may be, in the page's order, if some are wanted only.
    """

    def about(row: Row) -> tuple[str, ...]:
        return tuple(row[name] for name in names)

    def place(row: Row) -> int:
        known = wanted if order is None else order
        return known.index(about(row)) if about(row) in known else -1

    results.parent.mkdir(parents=True, exist_ok=True)
    if again:
        results.unlink(missing_ok=True)
    rows: list[Row] = [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []
    there = set(map(about, rows))
    try:
        for one in tqdm([one for one in wanted if one not in there], unit=" rows"):
            line = in_process(module, *options, "--one", *one)
            with results.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
            rows.append(json.loads(line))
    finally:
        if rows:
            write_page(sorted(rows, key=place))
