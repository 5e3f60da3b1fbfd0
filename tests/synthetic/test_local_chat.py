"""A decoder in this process: its answers depend on the request and its seed, not on what else is asked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from st_llm2vec.synthetic import Asking, SyntheticSettings, generate_data, open_chat_model
from st_llm2vec.synthetic.local_chat import LocalChat
from st_llm2vec.synthetic.local_decoder import OwnDraws, Sampling

PROMPTS = ["Once upon a time", "The cat", "Tell me a story of two ships that left the harbour at night", "Why"]


@pytest.fixture(scope="module")
def chat(decoder: str) -> LocalChat:
    return LocalChat(folder=decoder, dtype="float32", max_tokens=12)


def test_answers_alone_and_at_once_are_the_same(chat: LocalChat) -> None:
    models = [chat.model_copy(update={"seed": seed}) for seed in range(len(PROMPTS))]
    alone = [model.invoke(prompt) for model, prompt in zip(models, PROMPTS, strict=True)]

    async def at_once() -> list:
        return await asyncio.gather(*(model.ainvoke(prompt) for model, prompt in zip(models, PROMPTS, strict=True)))

    assert [one.text for one in asyncio.run(at_once())] == [one.text for one in alone]
    assert len({one.text for one in alone}) == 4
    assert models[0].invoke(PROMPTS[0]).text != models[1].invoke(PROMPTS[0]).text
    for one in alone:
        assert one.response_metadata["finish_reason"] in ("stop", "length")
        assert 0 < one.usage_metadata["output_tokens"] <= 12 and one.usage_metadata["input_tokens"] > 0


def test_tokens_are_drawn_as_often_as_they_are_likely() -> None:
    import torch

    scores = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    for temperature, top_p, likely in (
        (1.0, 1.0, [0.5, 0.3, 0.15, 0.05]),
        (1.0, 0.6, [0.625, 0.375, 0.0, 0.0]),
        (0.5, 1.0, [0.685, 0.247, 0.062, 0.007]),
        (0.0, 1.0, [1.0, 0.0, 0.0, 0.0]),
    ):
        draws = OwnDraws([Sampling(temperature, top_p, 1, 7)])
        drawn = [int(draws(torch.zeros(1, 1, dtype=torch.long), scores[None]).argmax()) for _ in range(2000)]
        counts = [drawn.count(token) / 2000 for token in range(4)]
        assert counts == pytest.approx(likely, abs=0.04), (temperature, top_p)


def test_the_chat_template_is_used(chat: LocalChat) -> None:
    tokenizer = chat._decoder.tokenizer
    plain = chat._decoder._encoded([[{"role": "user", "content": "Why"}]])["input_ids"]
    tokenizer.chat_template = "{% for one in messages %}{{ one.role }}: {{ one.content }}\n{% endfor %}assistant:"
    try:
        answer = chat.invoke([SystemMessage("Be brief."), HumanMessage("Why")])
    finally:
        tokenizer.chat_template = None
    said = tokenizer("system: Be brief.\nuser: Why\nassistant:", add_special_tokens=False)["input_ids"]
    assert answer.usage_metadata["input_tokens"] == len(said) > plain.shape[1]


def test_a_whole_run_in_this_process(decoder: str, tmp_path: Path) -> None:
    settings = SyntheticSettings.of("small", examples=2, groups=["sts"], max_tokens=8, most=1)
    model = open_chat_model(decoder, settings, dtype="float32")
    with pytest.raises(ValueError, match="No row is left"):  # it tells stories, and writes no JSON
        generate_data(model, tmp_path / "out", settings, Asking(seeded=True))
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["made with"]["reached"] == "in this process" and report["tokens"]["output"] > 0


def test_what_is_no_decoder_is_refused(tmp_path: Path) -> None:
    settings = SyntheticSettings()
    with pytest.raises(ValueError, match="has no config.json"):
        open_chat_model(str(tmp_path), settings)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match="could not be loaded as a decoder"):
        open_chat_model(str(tmp_path), settings)
    with pytest.raises(ValueError, match="There is no folder nowhere"):
        open_chat_model("nowhere", settings)
    with pytest.raises(ValueError, match="cannot be imported"):
        open_chat_model("tests.nowhere:model", settings)
    with pytest.raises(ValueError, match="a chat model of LangChain's is expected"):
        open_chat_model("tests.synthetic.writers:NOUNS", settings)
    assert open_chat_model("tests.synthetic.writers:chat_model", settings).kind == "object"
