"""What is taken of the hosts' own is listed, is there, and has a test."""

from __future__ import annotations

import ast
import pkgutil
from pathlib import Path
from typing import Any

import pytest

import st_llm2vec
from st_llm2vec import convert
from st_llm2vec.host.privates import CONFIG, MODEL, MODULE, PRIVATES, Private

TESTS = Path(__file__).parents[1]
PACKAGE = Path(st_llm2vec.__file__).parent


def privates_in(file: Path) -> set[str]:
    """The underscored attributes that a file reads or sets and that are not its own."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    stored = [node for node in nodes if isinstance(getattr(node, "ctx", None), ast.Store)]
    own = {one.attr for one in stored if isinstance(one, ast.Attribute) and ast.unparse(one.value) == "self"}
    own |= {one.id for one in stored if isinstance(one, ast.Name)}
    own |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    own |= {ast.literal_eval(node.slice) for node in nodes if isinstance(node, ast.Subscript) and _is_text(node.slice)}
    found = {node for node in nodes if isinstance(node, ast.Attribute) and node.attr.startswith("_")}
    ours = {node.attr for node in found if ast.unparse(node.value) in ("self", "cls", "module") and node.attr in own}
    return {node.attr for node in found if not node.attr.startswith("__")} - ours


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def test_every_private_that_is_used_is_listed() -> None:
    used = {name: file.name for file in PACKAGE.rglob("*.py") for name in privates_in(file)}
    ours = {"_exit", "_formatter"}  # the system's own name; and ours, set through another name than self
    unlisted = set(used) - {one.name for one in PRIVATES} - ours
    assert not unlisted, {name: used[name] for name in unlisted}


def test_every_listed_private_is_used() -> None:
    source = "\n".join(file.read_text(encoding="utf-8") for file in PACKAGE.rglob("*.py") if file.name != "privates.py")
    assert [one.name for one in PRIVATES if one.name not in source] == []


@pytest.fixture(scope="module")
def instances(decoder: str) -> dict[str, Any]:
    """Objects of the hosts' classes, for what only these have."""
    encoder = convert(decoder, "e5-mistral")
    return {MODULE: encoder[0], MODEL: encoder[0].model, CONFIG: encoder[0].model.config}


@pytest.mark.parametrize("private", PRIVATES, ids=lambda one: one.name)
def test_the_installed_hosts_have_it(private: Private, instances: dict[str, Any]) -> None:
    if private.owner.startswith("mteb:"):
        pytest.importorskip("mteb")
    owner = instances.get(private.owner) or pkgutil.resolve_name(private.owner)
    if private.name == "_orig_mod":  # an instance has it, once something is compiled
        assert "_orig_mod" in owner.__init__.__code__.co_names
    elif private.name == "_modules":
        assert "_modules" in owner().__dict__
    else:
        assert hasattr(owner, private.name)


@pytest.mark.parametrize("private", PRIVATES, ids=lambda one: one.name)
def test_a_test_stands_behind_it(private: Private) -> None:
    assert (TESTS / private.test).is_file()
