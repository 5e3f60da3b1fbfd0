"""Synthetic data in two steps (E5, arXiv 2401.00368, section 3.1): brainstorm tasks, then make an example of each."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from st_llm2vec.synthetic.answers import Unreadable, read_example, read_tasks
from st_llm2vec.synthetic.asking import Asked, Asking
from st_llm2vec.synthetic.chat_models import ChatModel, require_langchain
from st_llm2vec.synthetic.filters import why_not
from st_llm2vec.synthetic.groups import GROUPS, TaskGroup
from st_llm2vec.synthetic.journal import Journal
from st_llm2vec.synthetic.made import Made
from st_llm2vec.synthetic.output import Prices, report_of, write_data
from st_llm2vec.synthetic.plan import ChatRequest, brainstorm_request, example_request, languages_of
from st_llm2vec.synthetic.settings import SyntheticSettings
from st_llm2vec.synthetic.unique import Unique

Generated = tuple[dict[str, Made], dict[str, Made]]
Progress = Callable[[str, int, int], object]
"""Is told what is being made, how many of it are done, and how many are to be done."""


def generate_data(
    model: ChatModel,
    folder: str | Path,
    settings: SyntheticSettings | None = None,
    asking: Asking | None = None,
    *,
    prices: Prices | None = None,
    licence: str | None = None,
    on_progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Generate training data with a chat model into a folder: rows, the mixture that reads them, and a report.

    An answer is kept before the next is paid for, so that the same call goes on where a killed one was, and asks for what
    is not answered only. So does a call for more tasks or examples.

    Args:
        model: The chat model.
        folder: The folder. It may hold what an earlier call made.
        settings: What is generated.
        asking: How requests are made.
        prices: What tokens cost.
        licence: The licence of the data, for people; that of the model may say it.
        on_progress: Is told how far it is.

    Returns:
        The report, as ``report.json`` has it.

    Raises:
        ValueError: If the folder holds something else, another process has it, the model cannot be asked, or no row is
            left; the answers stay.
        OSError: If the model does not answer any more, or the disk is full.
    """
    require_langchain()
    settings = settings or SyntheticSettings()
    asking = asking or Asking()
    with Journal(Path(folder)).held() as journal:
        began, known = time.monotonic(), len(journal)
        asked = Asked(model.model, model.name, journal, settings, asking)
        tasks, examples = _run(_generate(asked, on_progress))
        report = report_of(model, settings, tasks, examples, prices)
        report["this call"] = {
            "requests": asked.made,
            "answers that were there": known,
            "errors": asked.errors,
            "seconds": round(time.monotonic() - began, 1),
        }
        write_data(Path(folder), model, examples, report, settings, licence)
    return report


def _run(work: Coroutine[Any, Any, Generated]) -> Generated:
    """Run it to its end, in a thread of its own where the caller's has an event loop already, as a notebook's has."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


async def _generate(asked: Asked, progress: Progress) -> Generated:
    settings = asked.settings
    tasks = {
        name: _begin(GROUPS[name], wanted, math.ceil(wanted / settings.tasks_per_request), settings)
        for name, wanted in settings.tasks_of().items()
    }

    def more_tasks(made: Made) -> list[ChatRequest]:
        count = math.ceil((made.wanted - len(made.kept)) / settings.tasks_per_request)
        return [brainstorm_request(made.group, one, settings) for one in _next(made, count)]

    await _rounds(asked, tasks, more_tasks, _take_tasks, "tasks", progress)
    examples = {
        name: _begin(GROUPS[name], wanted, wanted, settings)
        for name, wanted in settings.rows_of().items()
        if name not in tasks or tasks[name].kept
    }

    def more_examples(made: Made) -> list[ChatRequest]:
        known = tasks[made.group.name].kept if made.group.two_steps else []
        return [example_request(made.group, one, known, settings) for one in _next(made, made.wanted - len(made.kept))]

    await _rounds(asked, examples, more_examples, _take_example, "examples", progress)
    return tasks, examples


def _begin(group: TaskGroup, wanted: int, requests: int, settings: SyntheticSettings) -> Made:
    return Made(group, wanted, math.ceil(requests * settings.most), Unique(settings.near), Unique(settings.near))


def _next(made: Made, count: int) -> range:
    """The numbers of the next requests of a group, as many as are missing and may still be made."""
    return range(made.requests, min(made.requests + count, made.most))


async def _rounds(
    asked: Asked,
    groups: dict[str, Made],
    more: Callable[[Made], list[ChatRequest]],
    take: Callable[[Made, ChatRequest, Asked], None],
    what: str,
    progress: Progress,
) -> None:
    """Ask for what is missing of every group, and again for what has been left out, until all is there.

    Answers are taken in the order of their requests, so that what is kept does not depend on which came first.
    """
    done = 0
    while True:
        requests = {name: more(made) for name, made in groups.items()}
        total = done + sum(map(len, requests.values()))
        if total == done:
            return

        def advance(count: int, total: int = total) -> None:
            nonlocal done
            done += count
            progress(what, done, total)

        await asked.ask(_by_turns(list(requests.values())), advance)
        for name, those in requests.items():
            for request in those:
                take(groups[name], request, asked)


def _by_turns(lists: list[list[ChatRequest]]) -> list[ChatRequest]:
    """The requests of all groups, so that each group is a part of whatever is done when a run stops."""
    placed = [((at + 0.5) / len(one), number, at) for number, one in enumerate(lists) for at in range(len(one))]
    return [lists[number][at] for _, number, at in sorted(placed)]


def _take_tasks(made: Made, request: ChatRequest, asked: Asked) -> None:
    answer = _count(made, request, asked)
    if answer is None:
        return
    try:
        found = read_tasks(answer)
    except Unreadable as reason:
        made.cannot_read(str(reason), answer.text)
        return
    for task in found:
        why = made.unique.why_not(task)
        if why is not None:
            made.leave_out(why, task)
        elif len(made.kept) < made.wanted:
            made.unique.add(task)
            made.kept.append(task)


def _take_example(made: Made, request: ChatRequest, asked: Asked) -> None:
    answer = _count(made, request, asked)
    if answer is None:
        return
    try:
        found = read_example(answer, request.keys)
    except Unreadable as reason:
        made.cannot_read(str(reason), answer.text)
        return
    texts = {column: found[key] for key, column in made.group.keys.items()}
    repeats = [made.unique.why_not(texts["query"])]
    if made.group.task != "classification":
        repeats.append(made.positives.why_not(texts["positive"]))
    why = why_not(made.group, texts, request.prompt, languages_of(request)) or next(filter(None, repeats), None)
    if why is not None:
        made.leave_out(why, answer.text)
        return
    made.unique.add(texts["query"])
    made.positives.add(texts["positive"])
    drawn = {name: value for name, value in request.drawn.items() if name not in ("task", "language")}
    task = {"instruction": request.drawn["task"]} if "task" in request.drawn else {}
    language = request.drawn["language"]
    made.kept.append({**texts, **task, "language": language, "drawn": drawn, "request": asked.identity(request)})


def _count(made: Made, request: ChatRequest, asked: Asked) -> Any:
    """A request's answer, counted."""
    made.requests += 1
    answer = asked.answer(request)
    if answer is None:
        made.unanswered += 1
        return None
    made.tokens.update(answer.tokens or {"uncounted answers": 1})
    made.seconds += answer.seconds
    return answer
