from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from st_llm2vec import Demonstration, TextEncoder
from st_llm2vec.demonstrations import search as module
from st_llm2vec.demonstrations.candidates import built_in_candidates
from st_llm2vec.demonstrations.dev_sets import DevSet
from st_llm2vec.demonstrations.search import KeptNumbers, plan, search
from st_llm2vec.demonstrations.trial import Candidate, show

NONE = Candidate((), "none")


@dataclass(frozen=True)
class Known(DevSet):
    """A dev set that knows each candidate's worth, by the number in its word, and what it was asked."""

    size: int
    asked: list[tuple[int, tuple[int, ...]]]

    def __len__(self) -> int:
        return self.size

    def measure(self, encoder: TextEncoder, rows: Sequence[int]) -> list[float]:
        assert encoder.manifest is not None
        shown = encoder.manifest.config.demonstrations
        worth = int(shown[0].response) if shown else 0
        self.asked.append((worth, tuple(rows)))
        return [float(worth)] * len(rows)

    def score(self, numbers: Sequence[float], rows: Sequence[int]) -> float:
        return sum(numbers) / len(numbers)

    def fingerprint(self) -> str:
        return f"known {self.size}"


def worth(number: int) -> Candidate:
    return Candidate((Demonstration("A text.", str(number)),), "made up")


CANDIDATES = [worth(number) for number in (5, 1, 9, 3, 7, 2, 8, 4, 6)]


def test_the_best_is_found_and_the_others_stop_early(trial: TextEncoder) -> None:
    dev = Known(40, [])
    found = search(trial, CANDIDATES, dev, against=[worth(1), NONE], first_rows=4)
    assert found.found.candidate == worth(9) and found.found.rows == 40
    assert found.stages == [(4, 10), (12, 4), (40, 2)]
    assert [one.candidate for one in found.against] == [worth(1), NONE]
    assert [one.rows for one in found.against] == [40, 40], "what it is held against is scored on all rows"
    rows = {int(str(one.candidate).split()[-1]): one.rows for one in found.tried if one.candidate.demonstrations}
    assert rows == {9: 40, 8: 40, 7: 12, 6: 12, 5: 4, 4: 4, 3: 4, 2: 4, 1: 40}
    for number in range(1, 10):
        met = [row for asked, rows in dev.asked if asked == number for row in rows]
        assert len(met) == len(set(met)) == rows[number], "no row is met twice"


def test_stages_meet_the_rows_of_the_seed(trial: TextEncoder) -> None:
    asked = {}
    for run, seed in enumerate((0, 0, 1)):
        dev = Known(40, [])
        search(trial, CANDIDATES, dev, first_rows=4, seed=seed)
        asked[run] = dev.asked
    assert asked[0] == asked[1] != asked[2]


def test_what_it_is_held_against_may_be_chosen(trial: TextEncoder) -> None:
    found = search(trial, CANDIDATES[:4], Known(10, []), against=[worth(10)], first_rows=4)
    assert found.found.candidate == worth(10)


def test_an_interrupted_search_goes_on(trial: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = search(trial, CANDIDATES, Known(40, []), first_rows=4, cache=tmp_path / "whole")
    interrupted, measure = Known(40, []), Known.measure

    def until(self: Known, encoder: TextEncoder, rows: Sequence[int]) -> list[float]:
        if len(self.asked) == 11:
            raise KeyboardInterrupt
        return measure(self, encoder, rows)

    with monkeypatch.context() as patched:
        patched.setattr(Known, "measure", until)
        with pytest.raises(KeyboardInterrupt):
            search(trial, CANDIDATES, interrupted, first_rows=4, cache=tmp_path / "cache")
    resumed = Known(40, [])
    found = search(trial, CANDIDATES, resumed, first_rows=4, cache=tmp_path / "cache")
    assert [(one.candidate, one.rows, one.score) for one in found.tried] == [
        (one.candidate, one.rows, one.score) for one in whole.tried
    ]
    assert not set(interrupted.asked) & set(resumed.asked), "nothing is computed again"
    again = Known(40, [])
    search(trial, CANDIDATES, again, first_rows=4, cache=tmp_path / "cache")
    assert again.asked == []


def test_other_texts_or_weights_are_not_taken_for_these(trial: TextEncoder, tmp_path: Path) -> None:
    KeptNumbers(trial, Known(4, []), tmp_path).measure(worth(3))
    other = Known(5, [])
    KeptNumbers(trial, other, tmp_path).measure(worth(3))
    assert len(other.asked) == 1
    weight = trial.transformer.model.get_input_embeddings().weight
    weight.data[0, 0] += 1
    try:
        changed = Known(4, [])
        KeptNumbers(trial, changed, tmp_path).measure(worth(3))
        assert len(changed.asked) == 1
    finally:
        weight.data[0, 0] -= 1


def test_many_rows_are_kept_on_the_way(trial: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AT_ONCE", 4)
    dev, done = Known(10, []), []
    found = KeptNumbers(trial, dev, tmp_path).measure(worth(3), advance=done.append)
    assert [len(rows) for _, rows in dev.asked] == [4, 4, 2] and sum(done) == 10 and found.rows == 10
    [file] = tmp_path.iterdir()
    assert len(json.loads(file.read_text())["numbers"]) == 10


def test_a_damaged_file_is_said(trial: TextEncoder, tmp_path: Path) -> None:
    kept = KeptNumbers(trial, Known(4, []), tmp_path)
    kept.measure(worth(3))
    [file] = tmp_path.iterdir()
    file.write_text("{")
    with pytest.raises(ValueError, match="cannot be read.*delete it"):
        KeptNumbers(trial, Known(4, []), tmp_path).measure(worth(3))


def test_one_candidate_is_no_search(trial: TextEncoder) -> None:
    with pytest.raises(ValueError, match="1 different candidates; a search needs at least two"):
        search(trial, [worth(1), worth(1)], Known(4, []))


def test_plan_ends_on_all_rows() -> None:
    assert plan(107, 500, 16) == [(16, 107), (48, 36), (144, 12), (500, 4)]
    assert plan(9, 10, 32) == [(10, 9)]


def test_the_best_of_the_package_on_the_decoder_in_the_box(trial: TextEncoder, pairs) -> None:  # type: ignore[no-untyped-def]
    dev, known = pairs(8), built_in_candidates()[:8]
    found = search(trial, known, dev, against=[known[0], NONE], first_rows=8)
    whole = [one for one in found.tried if one.rows == len(dev)]
    assert found.found.score == max(one.score for one in whole) and len(whole) >= 3
    shown = show(trial, found.found.candidate.demonstrations)
    rows = range(len(dev))
    assert found.found.score == pytest.approx(dev.score(dev.measure(shown, rows), rows), abs=0.1)
