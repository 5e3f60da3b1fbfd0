"""The page in a browser: ST_LLM2VEC_BROWSER names a Chromium, and Playwright drives it; without them these are skipped."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from st_llm2vec.playground.models import Models

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
driver = pytest.importorskip("playwright.sync_api")

from st_llm2vec.playground.server import serve_page  # noqa: E402

BROWSER = os.environ.get("ST_LLM2VEC_BROWSER")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not BROWSER, reason="ST_LLM2VEC_BROWSER names no browser")]
WAIT = 120_000


@pytest.fixture(scope="module")
def address(models: Models) -> str:
    known, found = threading.Event(), []

    def ready(address: str) -> None:
        found.append(address)
        known.set()

    threading.Thread(target=serve_page, args=(models, "127.0.0.1", 0, ready), daemon=True).start()
    assert known.wait(60)
    return found[0]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with driver.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=[(390, "dark"), (1280, "light")], ids=["phone", "desk"])
def tab(browser: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Any]:
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
    context.set_default_timeout(WAIT)
    tab = context.new_page()
    tab.asked, tab.mistakes = [], []
    tab.on("request", lambda one: tab.asked.append(one.url))
    tab.on("pageerror", lambda one: tab.mistakes.append(str(one)))
    tab.goto(address)
    for box in tab.query_selector_all("input[type=checkbox]"):
        box.uncheck()
    yield tab
    context.close()


def choose(tab: Any, *recipes: str) -> None:
    for recipe in recipes:
        tab.check(f"input[data-recipe='{recipe}']")


def compare(tab: Any) -> None:
    tab.click("button")
    tab.wait_for_selector("main:not([hidden])")
    tab.wait_for_selector("#state:empty", state="attached")


def titles(tab: Any, place: str) -> list[str]:
    return [one.inner_text() for one in tab.query_selector_all(f"#{place} h3")]


def test_recipes_stand_side_by_side(tab: Any, address: str) -> None:
    choose(tab, "prompteol-icl", "echo")
    tab.fill("[name=instruction]", "Find it:")
    compare(tab)
    assert titles(tab, "nearest") == titles(tab, "similar") == ["prompteol-icl", "echo", "words alone"]
    assert titles(tab, "read") == ["prompteol-icl", "echo"]
    assert "takes no instruction" in tab.inner_text("#nearest .card")
    assert tab.evaluate("document.documentElement.scrollWidth") == tab.viewport_size["width"]
    tab.click("#read .pooled")
    assert "id " in tab.inner_text("#read .told") and "pooled" in tab.inner_text("#read .told")
    assert {one.rsplit("/", 1)[0] for one in tab.asked} == {address} and tab.mistakes == []


def test_mistakes_are_said_and_old_answers_go(tab: Any) -> None:
    tab.click("button")
    assert tab.inner_text("#error") == "Nothing is chosen. Choose a recipe at least."
    choose(tab, "echo")
    compare(tab)
    tab.fill("[name=passages]", "one")
    tab.click("button")
    tab.wait_for_selector("main", state="hidden")
    assert tab.inner_text("#error").startswith("There is one passage.")


def test_four_at_most_and_the_last_run_counts(tab: Any) -> None:
    choose(tab, "echo", "llm2vec", "prompteol", "sgpt")
    assert tab.is_disabled("input[data-recipe='mean']") and tab.is_disabled("input[data-model='my-encoder']")
    tab.click("button")
    for recipe in ("echo", "llm2vec", "prompteol"):
        tab.uncheck(f"input[data-recipe='{recipe}']")
    compare(tab)
    assert titles(tab, "nearest") == ["sgpt", "words alone"]
