"""What the package index shows, and what the extras name."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest
import yaml

import st_llm2vec

ROOT = Path(__file__).parents[1]
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
HOST = "https://example.org/us/st_llm2vec"


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    pytest.importorskip("hatchling")
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("repository", ["", HOST])
def test_the_readme_has_no_link_that_the_index_cannot_follow(
    hook: ModuleType, repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPOSITORY", repository)
    metadata: dict = {}
    hook.ProjectMetadata(str(ROOT), {}).update(metadata)
    text = re.sub(r"```.*?```", "", metadata["readme"]["text"], flags=re.DOTALL)
    assert [target for target in re.findall(r"\]\(([^)\s]+)\)", text) if not target.startswith(("https://", "#"))] == []
    assert (f"[serving]({HOST}/blob/main/docs/serving.md)" in text) == bool(repository)
    assert all(address.startswith(HOST) for address in metadata["urls"].values())
    assert bool(metadata["urls"]) == bool(repository)


@pytest.mark.parametrize("readme", sorted(ROOT.glob("integrations/*/README.md")), ids=lambda file: file.parent.name)
def test_the_adapters_readmes_link_to_addresses_alone(readme: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", readme.read_text(encoding="utf-8"))
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []


def test_pictures_are_shown_and_code_is_left_alone(hook: ModuleType) -> None:
    text = "![a](docs/a.svg)\n```python\nx[0](y)\n```\n[b](https://example.org)"
    assert hook.with_addresses(text, HOST) == text.replace("docs/a.svg", f"{HOST}/raw/main/docs/a.svg")
    assert hook.with_addresses(text, "") == text.replace("![a](docs/a.svg)", "")


@pytest.mark.parametrize(
    ("extra", "folder"), [("langchain", "langchain"), ("llama-index", "llama_index"), ("ray", "ray")]
)
def test_an_extra_installs_the_adapter_that_it_names(extra: str, folder: str) -> None:
    adapter = (ROOT / "integrations" / folder / "pyproject.toml").read_text(encoding="utf-8")
    name, version = (re.search(rf'^{field} = "(.*)"$', adapter, re.MULTILINE)[1] for field in ("name", "version"))
    named, lowest = re.search(rf'^{extra} = \["([\w-]+)>=([\d.]+)"\]$', PROJECT, re.MULTILINE).groups()
    assert named == name
    assert version.startswith(lowest)


def test_the_citation_has_the_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == st_llm2vec.__version__


def test_workflows_and_templates_are_yaml() -> None:
    for file in [*(ROOT / ".github").rglob("*.yml"), ROOT / ".pre-commit-config.yaml"]:
        assert isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict), file
