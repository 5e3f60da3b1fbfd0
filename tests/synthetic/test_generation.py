"""A run: what was wanted, by the seed alone, and nothing is asked for that is answered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from st_llm2vec.data import build_training_data, read_mixture
from st_llm2vec.synthetic import Asking, ChatModel, Prices, SyntheticSettings, generate_data
from st_llm2vec.synthetic.groups import GROUPS
from st_llm2vec.synthetic.output import MIXTURE, PROMPTS, REPORT

from .writers import ScriptedChat, drawn_from, write

# No library tells Yiddish, in whose name the scripted model writes English.
SETTINGS = SyntheticSettings.of(
    "small", tasks=8, examples=36, groups=list(GROUPS), languages=["en", "yi"], tasks_per_request=2
)


def named(model: ScriptedChat) -> ChatModel:
    return ChatModel(model, "scripted", "object")


def files(folder: Path) -> dict[str, str]:
    return {
        file.name: file.read_text()
        for file in folder.iterdir()
        if file.suffix in (".jsonl", ".yaml") and "req" not in file.name
    }


def test_all_six_groups_become_a_mixture_that_trains(tmp_path: Path) -> None:
    model = ScriptedChat()
    report = generate_data(named(model), tmp_path / "out", SETTINGS, prices=Prices(1.0, 2.0), licence="CC0")
    assert report["complete"] and report["rows"] == 36 and report["requests"] == len(model.prompts) == 40
    assert report["tokens"] == {"input": 4000, "output": 2000} and report["cost"] == 0.008
    assert report == json.loads((tmp_path / "out" / REPORT).read_text())
    assert report["made with"]["settings"]["temperature"] == 1.0 and report["made with"]["model"] == "scripted"
    assert (tmp_path / "out" / PROMPTS).read_text() == (
        Path(generate_data.__code__.co_filename).with_name("groups.yaml")
    ).read_text()
    mixture = read_mixture(tmp_path / "out" / MIXTURE)
    data = build_training_data(mixture.sources)
    assert [one.task for one in mixture.sources] == [group.task for group in GROUPS.values()]
    assert all(one.licence == "CC0" and "scripted" in str(one.note) for one in mixture.sources)
    for source, group in zip(mixture.sources, GROUPS.values(), strict=True):
        rows = data.dataset[source.label]
        assert len(rows) == 6 and ("negative_1" in rows.column_names) == group.has_negative
        assert data.prompts[source.label]["query"] == group.instruction
        assert ("positive" in data.prompts[source.label]) == (group.task in ("sts", "bitext"))
    row = json.loads((tmp_path / "out/short-long.jsonl").read_text().splitlines()[0])
    assert row["instruction"] in next(one for one in model.prompts if row["instruction"] in one)
    assert set(row["drawn"]) == set(GROUPS["short-long"].placeholders) and row["language"] in ("English", "Yiddish")


def test_it_runs_in_a_notebook_whose_thread_has_an_event_loop(tmp_path: Path) -> None:
    async def cell() -> dict[str, Any]:
        return generate_data(named(ScriptedChat()), tmp_path / "out", SETTINGS)

    assert asyncio.run(cell())["complete"]


def test_the_order_of_answers_does_not_matter(tmp_path: Path) -> None:
    async def late(prompt: str) -> str:
        draws = drawn_from(prompt)
        text = write(prompt, draws)
        await asyncio.sleep(draws.random() / 50)
        return text

    generate_data(named(ScriptedChat()), tmp_path / "one", SETTINGS, Asking(concurrency=1))
    generate_data(named(ScriptedChat(script=late)), tmp_path / "many", SETTINGS, Asking(concurrency=20))
    assert files(tmp_path / "one") == files(tmp_path / "many") and len(files(tmp_path / "one")) == 8


def test_more_is_asked_for_on_top_of_what_is_there(tmp_path: Path) -> None:
    few = SyntheticSettings.of("small", tasks=4, examples=10, groups=["short-long", "sts"], tasks_per_request=2)
    more = SyntheticSettings.of("small", tasks=8, examples=30, groups=["short-long", "sts"], tasks_per_request=2)
    generate_data(named(ScriptedChat()), tmp_path / "out", few)
    again, added, whole = ScriptedChat(), ScriptedChat(), ScriptedChat()
    assert generate_data(named(again), tmp_path / "out", few)["complete"] and again.prompts == []
    report = generate_data(named(added), tmp_path / "out", more)
    generate_data(named(whole), tmp_path / "whole", more)
    assert report["rows"] == 30 and files(tmp_path / "out") == files(tmp_path / "whole")
    assert len(added.prompts) == len(whole.prompts) - 12, "nothing that was asked for is lost"


def test_what_is_left_out_is_counted_made_up_for_and_shown(tmp_path: Path) -> None:
    spoilt: dict[str, Any] = {}

    def script(prompt: str) -> str:
        """Every second request for an example gives nothing of use, in several ways by turns."""
        good = write(prompt, drawn_from(prompt))
        if '"tasks"' in prompt or len(spoilt) >= 12:
            return good
        texts = json.loads(good)
        ways = [
            "I'm sorry, but I won't.",
            "No JSON at all.",
            json.dumps({**texts, "S2": texts["S1"]}),
            json.dumps({**texts, "S3": texts["S2"].upper()}),
            json.dumps({**texts, "S1": "a"}),
            json.dumps({"S1": "The first text that is always the same.", "S2": texts["S2"], "S3": texts["S3"]}),
        ]
        spoilt[prompt] = ways[len(spoilt) % len(ways)]
        return spoilt[prompt]

    settings = SyntheticSettings.of("small", examples=20, groups=["sts"])
    report = generate_data(named(ScriptedChat(script=script)), tmp_path / "out", settings, Asking(concurrency=1))
    counted = report["examples"]["sts"]
    assert report["complete"] and counted["kept"] == 20 and counted["requests"] == 31
    assert counted["unreadable"] == {"refused": 2, "unreadable": 2}
    assert counted["left out"] == {"two texts the same": 4, "too short": 2, "repeated": 1}
    assert {one["reason"] for one in counted["left out, samples"]} >= {"refused", "repeated", "too short"}


def test_a_model_that_gives_too_little_ends_all_the_same(tmp_path: Path) -> None:
    same = write('"S1" "S2" "S3"', drawn_from("the same"))
    settings = SyntheticSettings.of("small", examples=10, groups=["sts"], most=2)
    report = generate_data(named(ScriptedChat(script=lambda prompt: same)), tmp_path / "out", settings)
    assert not report["complete"] and report["rows"] == 1 and report["requests"] == 20
    assert report["examples"]["sts"]["left out"] == {"repeated": 19}


def test_nothing_is_said_in_a_sentence_and_kept(tmp_path: Path) -> None:
    settings = SyntheticSettings.of("small", tasks=2, examples=4, groups=["long-long", "sts"])
    with pytest.raises(ValueError, match="No row is left of 9 requests; .*report.json says what became of them"):
        generate_data(named(ScriptedChat(script=lambda prompt: "Hm.")), tmp_path / "out", settings)
    report = json.loads((tmp_path / "out" / REPORT).read_text())
    assert report["tasks"]["long-long"]["unreadable"] == {"unreadable": 3} and not (tmp_path / "out" / MIXTURE).exists()


def test_cut_answers_are_not_half_a_text(tmp_path: Path) -> None:
    def half(prompt: str) -> str:
        return write(prompt, drawn_from(prompt))[:-9]

    settings = SyntheticSettings.of("small", examples=2, groups=["sts"], most=1)
    with pytest.raises(ValueError, match="No row is left"):
        generate_data(named(ScriptedChat(script=half, finish="length")), tmp_path / "out", settings)
    assert json.loads((tmp_path / "out" / REPORT).read_text())["examples"]["sts"]["unreadable"] == {"cut off": 2}
