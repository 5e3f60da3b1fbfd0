from __future__ import annotations

from collections.abc import Callable

import pytest

from st_llm2vec import Demonstration, TextEncoder, convert
from st_llm2vec.demonstrations.candidates import task_examples
from st_llm2vec.demonstrations.trial import open_trial, show
from st_llm2vec.packed.enable import padding_free

from ..conftest import TEXTS, cosine_distance

SHOWN = (Demonstration("Snow fell all night.", "Winter"), Demonstration("A dog runs.", "Run"))


@pytest.mark.parametrize("shown", [(), SHOWN[:1], SHOWN], ids=len)
def test_vectors_are_those_of_the_converted_encoder(
    trial: TextEncoder, decoder: str, shown: tuple[Demonstration, ...]
) -> None:
    converted = convert(decoder, "prompteol", demonstrations=shown, measure=False)
    assert converted.layout == "message"
    assert cosine_distance(show(trial, shown).encode(TEXTS), converted.encode(TEXTS)) < 1e-6


def test_what_was_shown_before_leaves_nothing_behind(trial: TextEncoder) -> None:
    before = show(trial, SHOWN[:1]).encode(TEXTS)
    assert cosine_distance(show(trial, SHOWN).encode(TEXTS), before) > 1e-4
    assert cosine_distance(show(trial, SHOWN[:1]).encode(TEXTS), before) < 1e-6


def test_the_demonstration_passes_once_in_a_batch(trial: TextEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The packed sequence holds the shared tokens once, and so a long demonstration costs little."""
    packed = padding_free(trial.transformer)
    assert packed is not None and packed.shares_prefix
    lengths = []
    forward = trial.transformer.model.forward

    def seen(*args: object, **kwargs: object) -> object:
        lengths.append(kwargs["input_ids"].shape[-1])  # type: ignore[attr-defined]
        return forward(*args, **kwargs)

    monkeypatch.setattr(trial.transformer.model, "forward", seen)
    texts = [f"The bell rang {number} times." for number in range(16)]
    tokens = {}
    for shown in ((), SHOWN):
        lengths.clear()
        show(trial, shown).encode(texts)
        tokens[shown] = sum(lengths)
    demonstrations = sum(len(trial.tokenizer(f"{one.text}{one.response}")["input_ids"]) for one in SHOWN)
    assert demonstrations < tokens[SHOWN] - tokens[()] < 6 * demonstrations


def test_a_recipe_without_a_place_for_them_is_refused(decoder: str) -> None:
    with pytest.raises(ValueError, match="takes no demonstrations.*prompteol"):
        open_trial(decoder, "llm2vec")


def test_texts_that_are_read_twice(decoder: str) -> None:
    shown = show(open_trial(decoder, "reverse-eol"), SHOWN).encode(TEXTS)
    assert cosine_distance(shown, convert(decoder, "reverse-eol", demonstrations=SHOWN).encode(TEXTS)) < 1e-6


def test_families_with_positions_of_their_own(tiny: Callable[..., str]) -> None:
    folder = tiny("gpt2", max_position_embeddings=256)
    shown = show(open_trial(folder, "prompteol"), SHOWN).encode(TEXTS)
    assert cosine_distance(shown, convert(folder, "prompteol", demonstrations=SHOWN).encode(TEXTS)) < 1e-6


def test_examples_of_a_task(decoder: str) -> None:
    examples = task_examples([("who rang?", "The verger rang the bell."), ("when?", "At noon.")], "Answer:")
    trial = show(open_trial(decoder, "bge-en-icl"), examples)
    converted = convert(decoder, "bge-en-icl", demonstrations=examples, prompts={"query": "Answer:"}, measure=False)
    assert cosine_distance(trial.encode(TEXTS, prompt="Answer:"), converted.encode_query(TEXTS)) < 1e-6
    assert cosine_distance(trial.encode_document(TEXTS), converted.encode_document(TEXTS)) < 1e-6
