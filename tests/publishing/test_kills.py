"""Killed while it publishes, at any request or change of the disk: the repository holds all of it or nothing."""

from __future__ import annotations

import os
import signal
import traceback
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from st_llm2vec import convert, load, publish

from ..conftest import TEXTS, but_first, cosine_distance
from ..hub_server import Hub
from ..kills import killed_at
from ..promises import Promise
from .test_hub import contents, send


class KillsAt(list[tuple[str, str]]):
    """The requests that a Hub got; the n-th of them kills who sent it."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left, self.process = number, 0

    def append(self, request: tuple[str, str]) -> None:
        super().append(request)
        self.left -= 1
        if self.left < 0 and self.process:
            os.kill(self.process, signal.SIGKILL)
            self.process = 0


def killed_at_request(hub: Hub, number: int, folder: Path) -> bool:
    """Send a folder in a process of its own, which its n-th request kills; whether it was killed at all."""
    hub.requests = requests = KillsAt(number)
    go, tell = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.read(go, 1)
            huggingface_hub.close_session()  # the connections are the parent's
            send(folder, exist_ok=True)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    requests.process = child
    os.write(tell, b"x")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    requests.process = 0
    os.close(go)
    os.close(tell)
    assert code in (0, -signal.SIGKILL)
    return code != 0


@pytest.mark.promise(Promise.PUBLISHED_WHOLE)
@pytest.mark.parametrize(
    ("numbers", "there"),
    [
        pytest.param((11,), False, id="one"),
        pytest.param(range(60), False, id="new", marks=pytest.mark.slow),
        pytest.param(range(60), True, id="there", marks=pytest.mark.slow),
    ],
)
def test_killed_at_a_request_all_of_it_is_there_or_nothing(
    hub: Hub, folder: Path, tmp_path: Path, decoder: str, there: bool, numbers: Any, record_property: Any
) -> None:
    earlier = tmp_path / "earlier"
    convert(decoder, "echo", max_length=64).save_pretrained(str(earlier))
    kills = 0
    for number in numbers:
        hub.repositories.clear()
        if there:
            send(earlier)
        killed = killed_at_request(hub, number, folder)
        kills += killed
        found = hub.repositories["org/encoder"].files if hub.repositories else {}
        now = {name: one for name, one in found.items() if name != ".gitattributes"}
        assert now in ({}, contents(earlier) if there else {}, contents(folder))
        hub.requests = []
        send(folder, exist_ok=True)
        files = hub.repositories["org/encoder"].files
        assert {name: one for name, one in files.items() if name != ".gitattributes"} == contents(folder)
        assert len(hub.repositories["org/encoder"].branches["main"]) == 2 + there, "a commit is made once"
        if not killed:
            break
    assert kills and (not killed or len(numbers) == 1)
    record_property("cases", kills)


@pytest.mark.usefixtures("same_process")
@pytest.mark.promise(Promise.PUBLISHED_WHOLE)
@pytest.mark.parametrize("steps", but_first([(15,), range(0, 500, 2)]), ids=["one", "all"])
def test_a_kept_folder_is_whole_or_not_there(decoder: str, tmp_path: Path, steps: Any, record_property: Any) -> None:
    encoder, output = convert(decoder, "sgpt", max_length=64), tmp_path / "kept" / "encoder"
    kills = 0
    for step in steps:
        killed = killed_at(step, lambda: publish(encoder, "org/encoder", dry_run=True, output=output), str(tmp_path))
        kills += killed
        if output.exists():
            assert cosine_distance(load(output).encode(TEXTS), encoder.encode(TEXTS)) < 1e-6
            break
    else:
        publish(encoder, "org/encoder", dry_run=True, output=output)
    assert kills and [one.name for one in output.parent.iterdir()] == ["encoder"]
    record_property("cases", kills)
