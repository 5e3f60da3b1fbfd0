"""``st-llm2vec demonstrations``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer

from st_llm2vec import load
from st_llm2vec.evaluation.sentence_score import GRADES, sentence_groups

from ..conftest import TEXTS, cosine_distance
from .test_cli import loud_again, run, succeed  # noqa: F401


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    file = tmp_path / "pairs.csv"
    groups = sentence_groups()[:6]
    file.write_text("".join(f'"{one["text"]}","{one[part]}",{GRADES[part]}\n' for one in groups for part in GRADES))
    return file


def test_a_word_is_chosen_and_saved(decoder: str, pairs: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.jsonl"
    words = ("Run", "Sleep", "Cooking", "Winter")
    mine.write_text("\n".join(json.dumps({"text": f"This is {word}.", "response": word}) for word in words))
    given = [
        decoder,
        "--dev",
        pairs,
        "--candidates",
        mine,
        "--no-built-in",
        "--first",
        6,
        "--cache",
        tmp_path / "cache",
    ]
    found = json.loads(
        succeed("demonstrations", "words", *given, "--test", pairs, "-o", tmp_path / "made", "--json").stdout
    )
    assert found["stages"] == [[6, 6], [18, 2]] and len(found["tried"]) == 6 and len(found["against"]) == 2
    assert found["found"]["score"] >= max(one["score"] for one in found["against"])
    assert [one["score"] for one in found["test"]][0] == pytest.approx(found["found"]["score"]), "the same pairs"
    kept = json.loads((tmp_path / "made" / "demonstrations.json").read_text())
    assert kept["found"] == found["found"]
    encoder = load(tmp_path / "made")
    assert encoder.manifest is not None
    shown = [dict(text=one.text, response=one.response) for one in encoder.manifest.config.demonstrations]
    assert shown == [
        {key: one[key] for key in ("text", "response")} for one in found["found"]["candidate"]["demonstrations"]
    ]
    plain = SentenceTransformer(str(tmp_path / "made"))
    assert cosine_distance(plain.encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
    again = succeed("demonstrations", "words", *given, "-o", tmp_path / "made", "--overwrite")
    assert "Equestrian" in again.stdout and "(none)" in again.stdout and "ms a row" in again.stderr


def test_words_of_the_decoder_itself(
    decoder: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small decoder of these tests says no words, so that the beginnings of its answers are taken for such."""
    given = [decoder, "--dev", pairs, "--first", 18, "--cache", tmp_path / "cache", "--sentences", pairs, "--count", 3]
    said = succeed("demonstrations", "words", *given, "--no-built-in", "-o", tmp_path / "made").stderr
    assert "found 0 words of the 3" in said
    monkeypatch.setattr("st_llm2vec.demonstrations.generated.as_word", lambda answer: answer.strip()[:6] or None)
    found = json.loads(
        succeed("demonstrations", "words", *given, "--no-built-in", "-o", tmp_path / "other", "--json").stdout
    )
    assert {"generated", "none"} <= {one["candidate"]["source"] for one in found["tried"]}


def test_a_tasks_examples_are_chosen_and_saved(decoder: str, tmp_path: Path) -> None:
    rows = [{"query": one["text"], "positive": one["same"]} for one in sentence_groups()]
    for name, some in (("train", rows[:8]), ("dev", rows[8:14])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, some)))
    told = "Find the same meaning."
    files = ["--train", tmp_path / "train.jsonl", "--dev", tmp_path / "dev.jsonl", "--cache", tmp_path / "cache"]
    given = [decoder, *files, "--instruction", told, "--count", 4, "--first", 3, "--recipe", "bge-en-icl-few-shot"]
    found = json.loads(succeed("demonstrations", "examples", *given, "-o", tmp_path / "made", "--json").stdout)
    assert len(found["tried"]) == 6 and found["stages"][-1][0] == 6
    assert [one["candidate"]["source"] for one in found["against"]] == ["bge-en-icl-few-shot", "none"]
    encoder = load(tmp_path / "made")
    assert encoder.manifest is not None and encoder.manifest.config.prompts == {"query": told}
    assert len(encoder.manifest.config.demonstrations) in (0, 1, 2)


def test_bad_input_gets_a_sentence(decoder: str, pairs: Path, tmp_path: Path) -> None:
    given = ["demonstrations", "words", decoder, "--dev", pairs, "--cache", tmp_path / "cache"]
    refused = run(*given, "-o", tmp_path / "made", "--recipe", "llm2vec")
    assert refused.exit_code == 1 and "takes no demonstrations" in refused.stderr
    refused = run(*given, "-o", decoder)
    assert refused.exit_code == 1 and "decoder's own folder" in refused.stderr
    assert not (tmp_path / "made").exists()
