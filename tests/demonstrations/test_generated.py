from __future__ import annotations

import itertools

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from st_llm2vec.demonstrations import generated
from st_llm2vec.demonstrations.generated import as_word, generated_candidates
from st_llm2vec.evaluation.sentence_score import sentence_groups

SENTENCES = [group["text"] for group in sentence_groups()]


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        ('fun".', "Fun"),
        ('Equestrian".This', "Equestrian"),
        (' well-being"', "Well-being"),
        ('Größe"', "Größe"),
        ('music."', "Music"),
        ("uninterrup", None),
        ('horse riding"', None),
        ('the"', None),
        ('42"', None),
        ('"', None),
    ],
)
def test_only_whole_words_are_taken(answer: str, word: str | None) -> None:
    assert as_word(answer) == word


def test_answers_are_those_of_the_models_own_generation(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Greedy, as ``generate`` continues each string alone."""
    numbers = itertools.count()
    monkeypatch.setattr(generated, "as_word", lambda answer: f"{next(numbers)}{answer}")
    found = generated_candidates(decoder, SENTENCES, 5, recipe="prompteol")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(decoder), AutoTokenizer.from_pretrained(decoder)
    assert len(found) == 5
    for number, one in enumerate(found):
        [shown] = one.demonstrations
        asked = tokenizer(f'This sentence : "{shown.text}" means in one word:"', return_tensors="pt")
        with torch.no_grad():
            ids = model.generate(**asked, max_new_tokens=6, do_sample=False)[0, asked["input_ids"].shape[1] :]
        assert f"{number}{tokenizer.decode(ids, skip_special_tokens=True)}" == shown.response


def test_each_word_once_and_other_sentences_for_another_seed(decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "as_word", lambda answer: answer[:6])
    found = generated_candidates(decoder, SENTENCES, 4, seed=3)
    words = [one.demonstrations[0].response for one in found]
    assert len(set(words)) == len(words) >= 1
    assert (
        found
        == generated_candidates(decoder, SENTENCES, 4, seed=3)
        != generated_candidates(decoder, SENTENCES, 4, seed=4)
    )


def test_what_cannot_be_asked_is_said(decoder: str, tmp_path: object) -> None:
    with pytest.raises(ValueError, match="None of the 2 sentences has 4 to 16 words"):
        generated_candidates(decoder, ["a", "b c"], 3)
    with pytest.raises(ValueError, match="cannot be loaded with its output head"):
        generated_candidates(str(tmp_path), SENTENCES, 3)
