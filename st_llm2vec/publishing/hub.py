"""One commit to a repository on the Hugging Face Hub, all or nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from st_llm2vec.folder.save import MISLEADING, module_folders

NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
CARD = "README.md"
EXPORTS = re.compile(r"(onnx|openvino)/.*|(pytorch_model|adapter_model).*\.bin")


@dataclass(frozen=True)
class Target:
    """Where an encoder goes, and how.

    Args:
        repo_id: ``org/name``.
        token: Access token; the one that is logged in if not given.
        private: Whether a new repository is private; the account's default if not given.
        revision: Branch; it is made if it is not there. ``main`` if not given.
        create_pr: Whether to open a pull request instead of committing to the branch.
        exist_ok: Whether the repository may hold something already.
        replace_card: Whether a model card that is there is replaced.

    Raises:
        ValueError: If the name is not ``org/name``, or the choices exclude each other.
    """

    repo_id: str
    token: str | bool | None = field(default=None, repr=False)
    private: bool | None = None
    revision: str | None = None
    create_pr: bool = False
    exist_ok: bool = False
    replace_card: bool = False

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.repo_id) or ".." in self.repo_id or "--" in self.repo_id or len(self.repo_id) > 96:
            raise ValueError(
                f"{self.repo_id!r} is not a repository's name: it must be org/name, of letters, digits, '-', '_' and '.' "
                "(your user name is an org too), of 96 characters at most."
            )
        if self.create_pr and self.revision not in (None, "main"):
            raise ValueError(
                f"A pull request is made against main, so revision={self.revision!r} and create_pr exclude each other."
            )


@dataclass(frozen=True)
class Remote:
    """A repository as it is before anything is sent.

    Args:
        exists: Whether it is there.
        files: What it holds on the branch.
        commit: The branch's last commit; ``None`` if there is no such branch.
        modules: Folders of the modules of the encoder that it holds.
    """

    exists: bool = False
    files: tuple[str, ...] = ()
    commit: str | None = None
    modules: frozenset[str] = field(default_factory=frozenset)

    def stale(self, new: set[str]) -> list[str]:
        """Files of an earlier model that would change how the new one is read, and are not replaced by it."""
        return [
            name
            for name in self.files
            if name not in new
            and (MISLEADING.fullmatch(name) or EXPORTS.fullmatch(name) or name.split("/")[0] in self.modules)
        ]


def open_hub(target: Target) -> tuple[HfApi, Remote]:
    """Look before anything slow begins: is there a token, is it valid, and may the repository be written to.

    Args:
        target: Where the encoder goes.

    Returns:
        The client, and the repository as it is.

    Raises:
        ValueError: If there is no valid token, or the repository holds something and that was not expected.
    """
    token = target.token if isinstance(target.token, str) else get_token()
    if not token or target.token is False:
        raise ValueError(
            "There is no token for the Hugging Face Hub. Make one with the permission to write, then run `hf auth login`, "
            "set HF_TOKEN, or pass token=."
        )
    api = HfApi(token=token)
    try:
        api.whoami()
        remote = _look(api, target)
    except HfHubHTTPError as error:
        raise _refused(error, target.repo_id) from error
    except ValueError:
        raise
    except Exception as error:  # The HTTP library's own errors differ between versions of huggingface_hub.
        raise ValueError(f"The Hub at {api.endpoint} could not be reached: {error}") from error
    held = [name for name in remote.files if name != ".gitattributes"]
    if held and not (target.exist_ok or target.create_pr):
        raise ValueError(
            f"The repository {target.repo_id} exists and holds {len(held)} files. To put the encoder there all the same, "
            "say exist_ok=True (--exist-ok), or open a pull request with create_pr=True (--create-pr)."
        )
    return api, remote


def _look(api: HfApi, target: Target) -> Remote:
    try:
        info = api.model_info(target.repo_id)
    except RepositoryNotFoundError:
        return Remote()
    if target.private and not info.private:
        raise ValueError(
            f"The repository {target.repo_id} exists and is public, so private=True would not hold. Make it private in its "
            "settings first, or leave private out."
        )
    files = {one.rfilename for one in info.siblings or ()}
    commit = info.sha
    if target.revision is not None:
        try:
            info = api.model_info(target.repo_id, revision=target.revision)
            files, commit = {one.rfilename for one in info.siblings or ()}, info.sha
        except RevisionNotFoundError:
            commit = None  # A new branch begins as a copy of main, and has its files.
    modules: frozenset[str] = frozenset()
    if "modules.json" in files:
        file = hf_hub_download(
            target.repo_id, "modules.json", revision=info.sha, token=api.token, endpoint=api.endpoint
        )
        modules = module_folders(Path(file))
    return Remote(True, tuple(sorted(files)), commit, modules)


def commit_folder(
    api: HfApi, target: Target, remote: Remote, folder: Path, message: str, description: str, say: Callable[[str], None]
) -> tuple[str, str]:
    """Send a folder as one commit: first the large files, which nobody sees, then the commit that names them all.

    ``upload_folder`` may split a folder over several commits, so it is not used.

    Args:
        api: The client.
        target: Where the folder goes.
        remote: The repository as it was found.
        folder: What is sent; files that stay away must not be in it.
        message: The commit's first line.
        description: The rest, or the pull request's text.
        say: Is told what is being done.

    Returns:
        The address of the commit or pull request, and the commit.

    Raises:
        ValueError: If it fails. Nothing is published then, unless the message says that this is not known.
    """
    paths = folder_files(folder)
    options: dict[str, Any] = {"revision": target.revision, "create_pr": target.create_pr}
    try:
        if not remote.exists:
            say(f"Creating {target.repo_id} …")
            api.create_repo(target.repo_id, private=target.private, exist_ok=True)
        if target.revision and remote.commit is None:
            api.create_branch(target.repo_id, branch=target.revision, exist_ok=True)
        additions = [CommitOperationAdd(name, path) for name, path in paths.items()]
        say(f"Uploading {len(additions)} files …")
        api.preupload_lfs_files(target.repo_id, additions, free_memory=False, **options)
    except HfHubHTTPError as error:
        raise _refused(error, target.repo_id, "Nothing was published.") from error
    except Exception as error:  # Sockets, time-outs and the upload libraries all raise their own.
        raise ValueError(
            f"The upload to {target.repo_id} stopped ({_innermost(error)}). Nothing was published: without the commit that "
            "comes last, what was sent is not part of the repository. Run it again; what has arrived is not sent twice."
        ) from error
    say("Committing …")
    operations: list[Any] = [*additions, *(CommitOperationDelete(name) for name in remote.stale(set(paths)))]
    try:
        info = api.create_commit(
            target.repo_id,
            operations,
            commit_message=message,
            commit_description=description,
            parent_commit=None if target.create_pr else remote.commit,
            **options,
        )
    except HfHubHTTPError as error:
        raise _refused(error, target.repo_id, "Nothing was published.") from error
    except ValueError as error:
        raise ValueError(f"{target.repo_id} does not take the commit: {error} Nothing was published.") from error
    except Exception as error:
        raise ValueError(
            f"{target.repo_id} did not confirm the commit ({_innermost(error)}): all of it is there, or nothing. Look at its "
            "history, and run it again with exist_ok=True (--exist-ok); a commit that changes nothing is not made twice."
        ) from error
    return str(info.pr_url or info.commit_url), str(info.oid)


def folder_files(folder: Path) -> dict[str, Path]:
    """The files of a folder by their names in the repository, the model card first."""
    names = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return dict(sorted(names.items(), key=lambda one: (one[0] != CARD, one[0])))


def _refused(error: HfHubHTTPError, repo_id: str, after: str = "") -> ValueError:
    """What the Hub's refusal means, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = str(getattr(error, "server_message", None) or error).strip().splitlines()
    reasons = {
        401: "The token is not valid here. Make a new one with the permission to write, and run `hf auth login`.",
        403: f"This token has no permission to write to {repo_id}. Use one of its owner's, or another name.",
        404: f"There is no repository {repo_id} that this token may see.",
        409: f"{repo_id} was changed by someone else at the same time. Run it again.",
        412: f"{repo_id} has got another commit since it was looked at. Run it again.",
    }
    reason = reasons.get(status or 0, f"The Hub refused it with status {status}.")
    return ValueError(" ".join(part for part in (reason, after, f"(It said: {said[-1] if said else error})") if part))


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"
