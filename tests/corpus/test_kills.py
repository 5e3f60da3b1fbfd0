"""A job that is killed at any change of the disk and started again makes what one makes that was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.corpus.conftest import contents, run
from tests.corpus.test_resume import run_with_its_own_lock
from tests.kills import killed_at
from tests.promises import Promise


@pytest.mark.slow
@pytest.mark.promise(Promise.RESUMED)
def test_killed_at_any_change_of_the_disk_and_resumed_it_is_the_same(
    encoder: str, source: Path, finished: Path, tmp_path: Path, record_property: Any
) -> None:
    kills = 0
    for step in range(1000):
        output = tmp_path / str(step) / "o"
        killed = killed_at(step, lambda output=output: run_with_its_own_lock(encoder, source, output), str(tmp_path))
        run(encoder, source, output)
        assert contents(output) == contents(finished)
        kills += killed
        if not killed:
            break
    assert kills >= 25
    record_property("cases", kills)
