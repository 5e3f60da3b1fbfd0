"""The floor plan: imports point down a list of rooms, and never in a circle."""

from __future__ import annotations

import ast
from pathlib import Path

import st_llm2vec

PACKAGE = Path(st_llm2vec.__file__).parent
ROOMS = (
    "cli",
    "playground",
    "corpus",
    "demonstrations",
    "training",
    "inspection",
    "importing",
    "conversion",
    "publishing",
    "checking",
    "serving",
    "reporting",
    "evaluation",
    "synthetic",
    "folder",
    "data",
    "losses",
    "encoding",
    "layouts",
    "packed",
    "proof",
    "modules",
    "recipe",
    "host",
    "assets",
)
"""From the top floor down: a room imports from those below it only."""


def imports(file: Path) -> set[str]:
    """The modules of this package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            parts = {f"{node.module}.{name.name}" for name in node.names}
            found |= {part if is_module(part) else node.module for part in parts}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name for name in found if name.startswith("st_llm2vec.") and is_module(name)}


def is_module(name: str) -> bool:
    place = PACKAGE.parent / name.replace(".", "/")
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def room(name: str) -> str:
    return name.split(".")[1]


def files() -> dict[str, Path]:
    """The package's modules in rooms, by their names; the front door imports from all of them, and is left out."""
    found = {}
    for file in PACKAGE.glob("*/**/*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def test_every_folder_is_a_room_and_nothing_lies_in_the_hall() -> None:
    assert {one.name for one in PACKAGE.iterdir() if (one / "__init__.py").is_file()} == set(ROOMS)
    assert {one.name for one in PACKAGE.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_rooms_import_from_those_below_only() -> None:
    upward = [
        f"{name} imports {other}"
        for name, file in files().items()
        for other in imports(file)
        if ROOMS.index(room(other)) < ROOMS.index(room(name))
    ]
    assert upward == []


def test_no_imports_go_in_a_circle() -> None:
    graph = {name: imports(file) for name, file in files().items()}
    while graph:
        leaves = {name for name, others in graph.items() if not others & (set(graph) - {name})}
        assert leaves, f"a circle among {sorted(graph)}"
        graph = {name: others for name, others in graph.items() if name not in leaves}
