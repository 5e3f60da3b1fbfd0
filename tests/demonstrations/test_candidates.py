from __future__ import annotations

import json
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from st_llm2vec import RECIPES, Demonstration, convert, load
from st_llm2vec.demonstrations.candidates import (
    built_in_candidates,
    example_sets,
    read_candidates,
    read_scored_pairs,
    read_sentences,
    read_task_pairs,
    task_examples,
)

from ..conftest import TEXTS, cosine_distance

PAIRS = [(f"what is number {number}?", f"Number {number} is one of {number + 1}.") for number in range(8)]


def test_the_built_in_ones_are_whole_and_differ() -> None:
    found = built_in_candidates()
    assert found[0].demonstrations == RECIPES["prompteol-icl"].demonstrations
    shown = [one for candidate in found for one in candidate.demonstrations]
    assert len({one.text for one in shown}) == len({one.response for one in shown}) == len(shown) > 60
    for one in shown:
        assert one.response.istitle() and " " not in one.response and '"' not in one.text and one.text[-1] in ".?"


def test_files_of_candidates(tmp_path: Path) -> None:
    table = tmp_path / "mine.csv"
    table.write_text("text,response\nA dog runs.,Run\n12,13\n")
    assert [one.demonstrations for one in read_candidates(table)] == [
        (Demonstration("A dog runs.", "Run"),),
        (Demonstration("12", "13"),),
    ]
    lines = tmp_path / "mine.jsonl"
    lines.write_text(json.dumps({"text": "q", "response": "a", "instruction": "Answer."}))
    assert read_candidates(lines)[0].demonstrations == (Demonstration("q", "a", "Answer."),)
    lines.write_text(json.dumps({"text": "q", "word": "a"}))
    with pytest.raises(ValueError, match="no column 'response', only text, word"):
        read_candidates(lines)
    lines.write_text('{"text": "q", "response": "a"}\n{"text": "q", "response": null}')
    with pytest.raises(ValueError, match=r"Row 2 of .*mine.jsonl has no text or no response"):
        read_candidates(lines)


def test_sentences_of_a_text_file_and_of_pairs(tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("A dog runs.\n\nA cat sleeps.\nA dog runs.\n")
    assert read_sentences(tmp_path / "texts.txt") == ["A dog runs.", "A cat sleeps."]
    (tmp_path / "pairs.csv").write_text("A dog runs.,A cat sleeps.,0.5\nA ship.,A dog runs.,1.0\n")
    assert read_sentences(tmp_path / "pairs.csv") == ["A dog runs.", "A ship.", "A cat sleeps."]
    dev = read_scored_pairs(tmp_path / "pairs.csv")
    assert (dev.first[1], dev.second[1], dev.scores) == ("A ship.", "A dog runs.", [0.5, 1.0])


def test_pairs_of_a_task(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(json.dumps({"anchor": query, "positive": positive}) for query, positive in PAIRS))
    assert read_task_pairs(file, limit=3) == PAIRS[:3]
    file.write_text(json.dumps({"anchor": "a", "other": "b"}))
    with pytest.raises(ValueError, match="none of positive, answer, document"):
        read_task_pairs(file)


def test_the_first_of_several_positives(tmp_path: Path) -> None:
    """Training reads lists of positives: files of it are read here too."""
    file = tmp_path / "pairs.jsonl"
    rows = [{"query": query, "positive": ["", positive, "another"]} for query, positive in PAIRS]
    file.write_text("\n".join(map(json.dumps, [*rows, {"query": "none", "positive": []}])))
    found = read_task_pairs(file)
    assert found == PAIRS and len(example_sets(found, "Answer.", count=5)) == 5
    file.write_text('{"query": "how many?", "positive": 7}\n')
    with pytest.raises(ValueError, match=r"Line 1 of .*pairs.jsonl has int '7' in 'positive'; a text is expected"):
        read_task_pairs(file)


def test_sets_of_examples() -> None:
    long = ("what is long?", "word " * 100)
    sets = example_sets([*PAIRS, long], "Answer the question.", examples=2, count=20, seed=1)
    assert sets == example_sets([*PAIRS, long], "Answer the question.", examples=2, count=20, seed=1)
    assert sets != example_sets([*PAIRS, long], "Answer the question.", examples=2, count=20, seed=2)
    shown = [one for candidate in sets for one in candidate.demonstrations]
    assert len(sets) > 10 and all(len(candidate.demonstrations) == 2 for candidate in sets)
    assert long[0] not in {one.text for one in shown}
    assert {one.instruction for one in shown} == {"Answer the question."}
    with pytest.raises(ValueError, match="2 of 2 pairs have at most 64 words; sets of 2 need more"):
        example_sets(PAIRS[:2], "Answer.", examples=2)
    with pytest.raises(ValueError, match="need the task's instruction"):
        task_examples(PAIRS, " ")


def test_a_tasks_examples_are_read_through_every_door(decoder: str, tmp_path: Path) -> None:
    """In memory, from the saved folder and by plain Sentence Transformers: the vectors of bge-en-icl's string."""
    told = "Answer the question."
    examples = task_examples(PAIRS[:2], told)
    encoder = convert(decoder, "bge-en-icl", demonstrations=examples, prompts={"query": told}, measure=False)
    encoder.save(str(tmp_path / "saved"))
    ours = load(tmp_path / "saved")
    assert ours.manifest is not None and ours.manifest.config.demonstrations == examples
    plain = SentenceTransformer(str(tmp_path / "saved"), trust_remote_code=encoder.layout == "custom")
    written = "".join(f"<instruct>{told}\n<query>{query}\n<response>{positive}\n\n" for query, positive in PAIRS[:2])
    strings = [f"{written}<instruct>{told}\n<query>{text}\n<response>" for text in TEXTS]
    direct = convert(decoder, "bge-en-icl", measure=False).encode(strings)
    for door in (encoder, ours, plain):
        assert cosine_distance(door.encode_query(TEXTS), direct) < 1e-6
