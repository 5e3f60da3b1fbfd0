from __future__ import annotations

from st_llm2vec.corpus import Progress
from st_llm2vec.corpus.progress import Meter


def test_earlier_runs_count_as_done_but_not_as_speed() -> None:
    now, seen = [100.0], list[Progress]()
    meter = Meter(1000, 400, seen.append, lambda: now[0])
    now[0] = 110.0
    meter.advance(50, 2000)
    assert seen[0].rows == 400 and seen[0].seconds_left is None
    assert (seen[1].rows, seen[1].texts_per_second, seen[1].tokens_per_second) == (450, 5.0, 200.0)
    assert seen[1].seconds_left == 110.0


def test_without_a_total_there_is_no_time_left() -> None:
    meter = Meter(None, 0)
    meter.advance(5, 10)
    assert meter.progress().seconds_left is None
