"""One commit or none: what the Hub refuses, where it dies, and what stands in the repository afterwards."""

from __future__ import annotations

import shutil
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from st_llm2vec import convert, load
from st_llm2vec.publishing.hub import Target, commit_folder, open_hub

from ..conftest import INSTRUCTION, TEXTS, cosine_distance
from ..hub_server import Hub
from ..hub_store import Fault
from ..promises import Promise
from .conftest import READER, STRANGER


def send(folder: Path, repo_id: str = "org/encoder", **choices: object) -> str:
    """What ``publish`` does after it has verified a folder."""
    target = Target(repo_id, **choices)
    api, remote = open_hub(target)
    steps: list[str] = []
    return commit_folder(api, target, remote, folder, "Add encoder", "verified", steps.append)[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.promise(Promise.PUBLISHED_WHOLE)
def test_all_files_arrive_in_one_commit_and_large_ones_in_parts(hub: Hub, folder: Path) -> None:
    url = send(folder, private=True)
    repository = hub.repositories["org/encoder"]
    assert repository.private
    assert len(repository.branches["main"]) == 2
    assert url.endswith(repository.branches["main"][-1].oid)
    found = {name: content for name, content in repository.files.items() if name != ".gitattributes"}
    assert found == contents(folder)
    parts = [path for method, path in hub.requests if method == "PUT"]
    assert any(path.endswith("/1") for path in parts) and any(path.endswith("/2") for path in parts)


def test_a_second_run_changes_nothing_and_makes_no_commit(hub: Hub, folder: Path) -> None:
    send(folder)
    sent = len([1 for method, _ in hub.requests if method == "PUT"])
    send(folder, exist_ok=True)
    assert len(hub.repositories["org/encoder"].branches["main"]) == 2
    assert len([1 for method, _ in hub.requests if method == "PUT"]) == sent


@pytest.mark.parametrize("name", ["encoder", "a/b/c", "org/", "/name", "org/na me", "org/a..b", "org/" + "x" * 99])
def test_a_name_that_is_not_org_and_name(name: str) -> None:
    with pytest.raises(ValueError, match="must be org/name"):
        Target(name)


def test_no_token(hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="There is no token.*hf auth login"):
        send(folder)
    assert not hub.asked_for("org/encoder")


def test_a_wrong_token(hub: Hub, folder: Path) -> None:
    with pytest.raises(ValueError, match="The token is not valid here"):
        send(folder, token="hf_wrong")
    assert not hub.repositories


@pytest.mark.parametrize("token", [READER, STRANGER])
def test_no_permission(hub: Hub, folder: Path, token: str) -> None:
    with pytest.raises(ValueError, match="no permission to write to org/encoder.*Nothing was published"):
        send(folder, token=token)
    assert not hub.repositories
    send(folder)
    before = hub.repositories["org/encoder"].branches["main"][-1].oid
    with pytest.raises(ValueError, match="no permission to write to org/encoder.*Nothing was published"):
        send(folder, token=token, exist_ok=True)
    assert hub.repositories["org/encoder"].branches["main"][-1].oid == before


def test_the_repository_exists(hub: Hub, folder: Path) -> None:
    send(folder)
    asked = len(hub.requests)
    with pytest.raises(ValueError, match="exists and holds 14 files.*--exist-ok"):
        send(folder)
    assert not [path for method, path in hub.requests[asked:] if method == "POST"]
    with pytest.raises(ValueError, match="^The repository org/encoder exists and is public, so private=True"):
        send(folder, exist_ok=True, private=True)


@pytest.mark.promise(Promise.PUBLISHED_WHOLE)
@pytest.mark.parametrize("pattern", ["PUT /lfs", "POST /api/models/org/encoder/preupload", "info/lfs/objects/batch"])
def test_the_server_dies_in_the_middle_and_a_second_run_completes(hub: Hub, folder: Path, pattern: str) -> None:
    hub.faults.append(Fault(pattern, "die"))
    with pytest.raises(ValueError, match="stopped .*Nothing was published.*Run it again"):
        send(folder)
    assert set(hub.repositories["org/encoder"].files) == {".gitattributes"}
    hub.restart()
    send(folder)
    assert contents(folder).items() <= hub.repositories["org/encoder"].files.items()
    assert len(hub.repositories["org/encoder"].branches["main"]) == 2


@pytest.mark.promise(Promise.PUBLISHED_WHOLE)
def test_the_server_dies_at_the_commit(hub: Hub, folder: Path) -> None:
    hub.faults.append(Fault("/commit/", "die"))
    with pytest.raises(ValueError, match="did not confirm the commit.*all of it is there, or nothing"):
        send(folder)
    assert set(hub.repositories["org/encoder"].files) == {".gitattributes"}
    hub.restart()
    send(folder)
    assert contents(folder).items() <= hub.repositories["org/encoder"].files.items()


def test_no_connection_outlives_a_server_that_dies(hub: Hub) -> None:
    idle, other = (HTTPConnection(urlsplit(hub.url).netloc, timeout=20) for _ in range(2))
    idle.request("GET", "/api/models/org/encoder")
    assert idle.getresponse().read()
    hub.faults.append(Fault("whoami", "die"))
    other.request("GET", "/api/whoami-v2")
    with pytest.raises(ConnectionError):
        other.getresponse()
    hub.restart()
    with pytest.raises(ConnectionError):
        idle.request("GET", "/api/models/org/encoder")
        idle.getresponse()


@pytest.mark.promise(Promise.PUBLISHED_WHOLE)
def test_a_failure_leaves_an_existing_repository_as_it_was(hub: Hub, folder: Path, tmp_path: Path) -> None:
    send(folder)
    before = dict(hub.repositories["org/encoder"].files)
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    (other / "config.json").write_text("{}")
    hub.faults.append(Fault("/commit/", 500))
    with pytest.raises(ValueError, match="status 500.*Nothing was published"):
        send(other, exist_ok=True)
    assert hub.repositories["org/encoder"].files == before


@pytest.mark.promise(Promise.PUBLISHED_WHOLE)
def test_somebody_else_commits_meanwhile(hub: Hub, folder: Path) -> None:
    target = Target("org/encoder")
    api, remote = open_hub(target)
    send(folder)
    stale = open_hub(Target("org/encoder", exist_ok=True))[1]
    api.upload_file(path_or_fileobj=b"notes", path_in_repo="notes.txt", repo_id="org/encoder")
    with pytest.raises(ValueError, match="another commit since it was looked at"):
        commit_folder(api, target, stale, folder.parent, "m", "", lambda _: None)
    assert not remote.exists


def test_a_branch_is_made_and_main_stays(hub: Hub, folder: Path) -> None:
    hub_repository = "org/encoder"
    send(folder, hub_repository)
    main = hub.repositories[hub_repository].branches["main"][-1].oid
    for _ in range(2):
        send(folder, hub_repository, revision="v2", exist_ok=True)
    assert hub.repositories[hub_repository].branches["main"][-1].oid == main
    assert "v2" in hub.repositories[hub_repository].branches


def test_a_card_that_the_hub_does_not_take(hub: Hub, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "carded")
    (tmp_path / "carded/README.md").write_text("---\ntags: none\n---\n")
    with pytest.raises(ValueError, match="(?s)Invalid metadata in README.md.*Nothing was published"):
        send(tmp_path / "carded")
    assert set(hub.repositories["org/encoder"].files) == {".gitattributes"}


def test_a_new_branch_loses_what_an_earlier_model_left(hub: Hub, folder: Path, decoder: str, tmp_path: Path) -> None:
    convert(decoder, "echo", max_length=128).save_pretrained(str(tmp_path / "echo"))
    send(tmp_path / "echo")
    send(folder, revision="v2", exist_ok=True)
    repository = hub.repositories["org/encoder"]
    assert set(repository.at("v2").files) == {*contents(folder), ".gitattributes"}
    assert set(repository.files) == {*contents(tmp_path / "echo"), ".gitattributes"}


def test_a_new_repository_can_begin_with_a_branch(hub: Hub, folder: Path) -> None:
    send(folder, revision="v1")
    assert (
        contents(folder).items()
        <= {k: b.content for k, b in hub.repositories["org/encoder"].at("v1").files.items()}.items()
    )
    assert set(hub.repositories["org/encoder"].files) == {".gitattributes"}


def test_a_pull_request_by_somebody_else(hub: Hub, folder: Path, tmp_path: Path) -> None:
    send(folder)
    changed = tmp_path / "changed"
    shutil.copytree(folder, changed)
    (changed / "config.json").write_text("{}")
    url = send(changed, token=STRANGER, create_pr=True)
    repository = hub.repositories["org/encoder"]
    assert url.endswith("/org/encoder/discussions/1")
    assert repository.files["config.json"] == (folder / "config.json").read_bytes()
    assert repository.at("refs/pr/1").files["config.json"].content == b"{}"
    with pytest.raises(ValueError, match="exclude each other"):
        Target("org/encoder", create_pr=True, revision="v2")


def test_what_an_earlier_model_left_is_removed_in_the_same_commit(
    hub: Hub, folder: Path, decoder: str, tmp_path: Path
) -> None:
    convert(decoder, "echo", max_length=128).save_pretrained(str(tmp_path / "echo"))
    for name in ("onnx/model.onnx", "pytorch_model.bin", "adapter_config.json", "notes.txt", "2024_results/table.csv"):
        (tmp_path / "echo" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "echo" / name).write_text("{}")
    send(tmp_path / "echo")
    send(folder, exist_ok=True)
    repository = hub.repositories["org/encoder"]
    assert len(repository.branches["main"]) == 3
    assert set(repository.files) == {*contents(folder), ".gitattributes", "notes.txt", "2024_results/table.csv"}


def test_a_corrupted_download_is_refused_and_comes_again(hub: Hub, folder: Path) -> None:
    send(folder)
    hub.faults = [Fault(r"GET /cdn/.*/model.safetensors", "corrupt")]
    with pytest.raises(ValueError, match="was corrupted on the way.*download it again"):
        load("org/encoder")
    encoder = load("org/encoder")
    assert cosine_distance(encoder.encode(TEXTS), load(folder).encode(TEXTS)) < 1e-6
    assert encoder.prompts["query"].strip() == INSTRUCTION


def test_a_download_that_breaks_off_is_resumed_or_refused(hub: Hub, folder: Path) -> None:
    send(folder)
    hub.faults = [Fault(r"GET /cdn/.*/model.safetensors", "truncate", times=100)]
    with pytest.raises(ValueError, match="org/encoder could not be downloaded"):
        load("org/encoder")
    hub.faults[0].times = 2
    encoder = load("org/encoder")
    assert cosine_distance(encoder.encode(TEXTS), load(folder).encode(TEXTS)) < 1e-6
